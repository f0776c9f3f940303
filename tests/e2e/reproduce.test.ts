// The command lines of docs/reproduce.md, as far as they go without the model: to its download.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine } from './cli-helpers.js';

const cli = commandLine();
const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'reproduce.md'), 'utf8');
const COMMON = '-m llava-1.5-7b --image-width 224 --image-cache pictures';

/** What the document says to type, with what it says that commands of its table take too. */
const LINES = [
  ...[...text.matchAll(/^xpatch (eval .*)$/gm)].map(([, line = '']) => line),
  ...[...text.matchAll(/^\| .*`xpatch (?:eval|evolution|decode|embed).*$/gm)].flatMap(([row]) => {
    const [, line = ''] = /xpatch ((?:eval|evolution|decode|embed)[^`]*)`/.exec(row) ?? [];
    const hasPlan = line.startsWith('eval ') && line !== 'eval compute';
    return [`${line} ${COMMON} -o FOLDER`, ...(hasPlan ? [`${line} ${COMMON} --plan`] : [])];
  }),
];

beforeAll(() => {
  const [main, pairs, layers] = [...text.matchAll(/```yaml\n(.*?)```/gs)].map(([, config = '']) => config);
  writeFileSync(join(cli.folder, 'llava.yaml'), main as string);
  writeFileSync(join(cli.folder, 'llava-pairs.yaml'), pairs as string);
  writeFileSync(join(cli.folder, 'llava-layers.yaml'), layers as string);
});

/** Settings in quotes; nothing else of a shell is in these lines. */
const words = (line: string) =>
  [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => (quoted ?? plain) as string);

const before = { ...process.env };
beforeAll(() => {
  const models = join(cli.folder, 'models');
  Object.assign(process.env, { HF_ENDPOINT: 'http://127.0.0.1:9', MODEL_ENDPOINT: '', XPATCH_MODELS: models });
});
afterAll(() => {
  process.env = before;
});

test.each(LINES)('%s', async (line) => {
  const { stdout } = await cli.run([...words(line), '--json']);
  expect(JSON.parse(stdout.trim().split('\n').at(-1) as string).error?.code).toBe('DOWNLOAD_FAILED');
});

test('compute has no plan, and says so before a model is loaded', async () => {
  const error = await cli.error('eval', 'compute', '-m', 'nope.gguf', '--plan');
  expect(error).toMatchObject({
    code: 'INVALID_ARGUMENT',
    exit: 2,
    message: expect.stringMatching(/no plan and no shards/),
  });
});
