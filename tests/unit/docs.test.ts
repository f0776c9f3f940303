import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { withReference } from '../../scripts/config-reference.mjs';
import { modelsTable, withTable } from '../../scripts/models-table.mjs';
import { allCommands } from '../../src/cli/cli.js';
import { nameOf } from '../../src/cli/command.js';
import { dashed } from '../../src/cli/option.js';
import { experimentOf, loadExperiment, parseConfig } from '../../src/experiment/config.js';
import { PRESETS } from '../../src/experiment/presets.js';
import { bytesOf, listCatalogue, memoryOf } from '../../src/hub/catalogue.js';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

const read = (...path: string[]) => readFileSync(join(PACKAGE_ROOT, ...path), 'utf8');
const documents = ['README.md', ...markdownIn('docs')];

function markdownIn(folder: string): string[] {
  return readdirSync(join(PACKAGE_ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return markdownIn(path);
    return path.endsWith('.md') ? [path] : [];
  });
}

const COMMAND = /\bxpatch +(?!--)([a-z][a-z-]*)([^\n`#]*)/g;

/** Command lines in code, in blocks and within sentences. */
function commandsOf(text: string): { name: string; rest: string }[] {
  const code = [...text.matchAll(/```[a-z]*\n(.*?)```|`([^`\n]+)`/gs)].map(
    ([, block, inline]) => block ?? inline ?? '',
  );
  return code.flatMap((piece) => [...piece.matchAll(COMMAND)].map(([, name = '', rest = '']) => ({ name, rest })));
}

test('the fields in docs/evaluation.md are those of the schema', () => {
  const schema = JSON.parse(read('schemas', 'experiment.schema.json'));
  const text = read('docs', 'evaluation.md');
  // If this fails: node scripts/config-reference.mjs
  expect(withReference(text, schema)).toBe(text);
});

test('the table in docs/models.md is that of the catalogue', () => {
  const text = read('docs', 'models.md');
  // If this fails: npm run build && node scripts/models-table.mjs
  expect(withTable(text, modelsTable(listCatalogue(), { sizeOf: bytesOf, memoryOf }))).toBe(text);
});

const COMMANDS = await allCommands();

describe.each(documents)('%s', (document) => {
  const commands = commandsOf(read(document));

  test('names only commands and options that exist, by the names of today', () => {
    for (const { name, rest } of commands) {
      const group = COMMANDS.find((command) => nameOf(command) === name);
      const [, second] = /^ +([a-z]+)/.exec(rest) ?? [];
      const command = group?.subcommands?.find((sub) => nameOf(sub) === second) ?? group;
      expect([`xpatch ${name}`, command !== undefined || name === 'help']).toEqual([`xpatch ${name}`, true]);
      const typed = Object.entries(command?.options ?? {}).flatMap(([option, { letter }]) => [
        `--${dashed(option)}`,
        `--no-${dashed(option)}`,
        ...(letter === undefined ? [] : [`-${letter}`]),
      ]);
      for (const [, option = ''] of rest.matchAll(/(?<=[ [(|])(--?[a-z][a-z-]*)/g)) {
        expect([`${name}${rest}`, option, [...typed, '--help', '--version', '--verbose'].includes(option)]).toEqual([
          `${name}${rest}`,
          option,
          true,
        ]);
      }
    }
  });

  test('sets only fields that a config has, of presets that exist', async () => {
    for (const { name, rest } of commands.filter((command) => command.name === 'eval')) {
      const [, source = ''] = /^ ([a-z-]+)(?: |$)/.exec(rest) ?? [];
      if (source === '') continue;
      expect(`${name} ${source} ${source in PRESETS}`).toBe(`${name} ${source} true`);
      const settings = [...rest.matchAll(/ --set "?([^\s"]+)/g)].map(([, setting = '']) => setting);
      if (source === 'vqa' && settings.length === 0) continue;
      // eval itself names the language model under a VLM of the catalogue.
      const named = settings.some((setting) => setting.startsWith('vectorModel='));
      if (source === 'llm-to-vlm' && !named) settings.push('vectorModel=demo-base');
      await loadExperiment(source, settings);
    }
  });
});

test('config files in the documents are valid', () => {
  const found = ['evaluation.md', 'reproduce.md'].flatMap((document) =>
    [...read('docs', document).matchAll(/```yaml\n(.*?)```/gs)].map(([, text = '']) => text),
  );
  const presets = found.map((text) => (parseConfig(text, 'document') as { preset?: string }).preset);
  expect(presets).toEqual(['main', 'main', 'modalities', 'layer-sweep']);
  for (const text of found) experimentOf(parseConfig(text, 'document'), { name: 'document' });
});
