// `xpatch data`: task files from others, and what is wrong with them.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine } from './cli-helpers.js';

const cli = commandLine();
const PICTURES = join(PACKAGE_ROOT, 'data', 'images', 'twemoji');
const write = (name: string, content: unknown) => writeFileSync(join(cli.folder, name), JSON.stringify(content));
const flags = () =>
  (JSON.parse(readFileSync(join(PACKAGE_ROOT, 'data', 'tasks', 'country-capital.json'), 'utf8')) as object[]).filter(
    (item) => 'image' in item,
  );

beforeAll(() => {
  // As the paper's data is laid out: a list, and a folder of pictures that stays as it is.
  mkdirSync(join(cli.folder, 'flags'));
  for (const file of readdirSync(PICTURES)) copyFileSync(join(PICTURES, file), join(cli.folder, 'flags', file));
  write('paper.json', flags());
});

describe('data import', () => {
  const IMPORT = ['data', 'import', 'paper.json', '--images-root', 'flags'];

  test("of the paper's form: a task that passes the check and serves a vector", async () => {
    mkdirSync(join(cli.folder, 'tasks'));
    const instruction = 'The capital city of the country:';
    const made = await cli.json(
      ...IMPORT,
      '-o',
      'tasks/capital.json',
      '--instruction',
      instruction,
      '--domain',
      'country',
    );
    expect(made).toMatchObject({ ok: true, items: 177, inputsWithPicture: 177 });
    const task = JSON.parse(readFileSync(join(cli.folder, 'tasks', 'capital.json'), 'utf8'));
    expect(task).toMatchObject({ domain: 'country', instruction });
    expect(task.items[0]).toEqual({ input: 'Afghanistan', output: 'Kabul', image: '../flags/afghanistan.png' });
    const { ok, checks } = await cli.json('data', 'check', 'tasks/capital.json');
    expect(ok).toBe(true);
    expect(checks).toMatchObject([{ name: 'capital', hash: made.hash, items: 177 }]);
    for (const spec of ['image', 'instruction']) {
      const prompts = spec === 'image' ? ['--prompts', '2'] : [];
      const vector = ['extract', '-m', 'demo', '--tasks', 'tasks/capital.json', '--specs', spec, ...prompts];
      await cli.json(...vector, '-o', `${spec}.safetensors`);
    }
  });

  test('of visual question answering', async () => {
    const asked = (question: string) =>
      flags()
        .slice(0, 40)
        .map((item, i) => ({ image: (item as { image: string }).image, question, answer: `answer ${i % 3}` }));
    write('vqa.json', [...asked('What flag is this?'), ...asked('Is it red?')]);
    const vqa = ['data', 'import', 'vqa.json', '--images-root', 'flags', '-o', 'vqa-task.json'];
    expect(await cli.error(...vqa)).toMatchObject({ code: 'TASK_INVALID', exit: 1 });
    expect(await cli.json(...vqa, '--question', 'Is it red?')).toMatchObject({ items: 40, answers: 3 });
    const task = JSON.parse(readFileSync(join(cli.folder, 'vqa-task.json'), 'utf8'));
    expect(task).toMatchObject({ question: 'Is it red?', instruction: 'Is it red:' });
  });

  test('refuses what is wrong, and its own input as output', async () => {
    write('wrong.json', [...flags().slice(0, 3), { input: 'Peru', output: 'Lima', image: 'nowhere.png' }]);
    const wrong = await cli.error('data', 'import', 'wrong.json', '--images-root', 'flags', '-o', 'wrong-task.json');
    expect(wrong).toMatchObject({ code: 'TASK_INVALID', exit: 1 });
    expect(wrong.message).toMatch(/entry 3: .*nowhere\.png/);
    expect(existsSync(join(cli.folder, 'wrong-task.json'))).toBe(false);
    expect(await cli.error(...IMPORT, '-o', 'paper.json')).toMatchObject({ code: 'FILE_WRITE', exit: 1 });
  });
});

describe('data check', () => {
  test('ends with 0 after warnings, and says which answers a tokenizer begins alike', async () => {
    const { code, stdout, stderr } = await cli.run(['data', 'check', 'animal-latin', '-m', 'demo', '--quiet']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^animal-latin: 168 items, 168 inputs \(97 with a picture\), 168 answers\n/);
    expect(stdout).toMatch(/warning: shared-first-token: .*"Canis lupus" begin with the same token "Canis"/);
    expect(stdout).toMatch(
      /Leaks were looked for under seeds 1, 2, 3, with 30 validation and 100 test items; eval looks in/,
    );
    expect((await cli.run(['data', 'check', 'animal-latin'])).stdout).not.toContain('shared-first-token');
  });

  test('ends with 1 after errors, lists a few of many, and shows hidden characters', async () => {
    const items = Array.from({ length: 140 }, (_, i) => ({
      input: `thing ${i}`,
      output: `${i}`,
      image: `flags/none${i}.png`,
    }));
    write('many.json', [...items, { input: 'thing 0', output: 'right\u202eleft' }]);
    const { code, stdout } = await cli.run(['data', 'check', 'many.json']);
    expect(code).toBe(1);
    expect(stdout.match(/error: missing-picture: item/g)?.length).toBe(5);
    expect(stdout).toContain('error: missing-picture: 135 more; --json lists them.');
    expect(stdout).toContain('right\\u{202e}left');
    expect(stdout).not.toContain('\u202e');
    const outcome = await cli.run(['data', 'check', 'many.json', '--json']);
    expect(outcome).toMatchObject({ code: 1, stderr: '' });
    const { ok, checks } = JSON.parse(outcome.stdout);
    expect(ok).toBe(false);
    expect(checks[0].findings.filter(({ kind }: { kind: string }) => kind === 'missing-picture').length).toBe(140);
  });

  test.each<[string, string[], string, number]>([
    ['no command', ['data'], 'INVALID_ARGUMENT', 2],
    ['an unknown command', ['data', 'chek'], 'INVALID_ARGUMENT', 2],
    ['no file', ['data', 'check'], 'INVALID_ARGUMENT', 2],
    ['a missing file', ['data', 'check', 'none.json'], 'FILE_NOT_FOUND', 1],
    ['an unknown task', ['data', 'check', 'food-colour'], 'TASK_INVALID', 1],
    ['an unknown style', ['data', 'check', 'food-color', '--style', '../noto'], 'TASK_INVALID', 1],
    ['a folder for shipped pictures', ['data', 'check', 'food-color', '--images-root', '.'], 'INVALID_ARGUMENT', 2],
    ['a style for a file', ['data', 'check', 'paper.json', '--style', 'noto'], 'INVALID_ARGUMENT', 2],
    ['no folder of pictures', ['data', 'import', 'paper.json', '-o', 'x.json'], 'INVALID_ARGUMENT', 2],
  ])('refuses %s', async (_, args, code, exit) => {
    expect(await cli.error(...args)).toMatchObject({ code, exit });
  });
});
