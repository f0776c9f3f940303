// `xpatch score` on the shipped model: files of items in, scores out.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';

const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
const DEMO = ['-m', 'demo', '--device', 'cpu'];
const options = ['Lima', 'Tokyo', 'Oslo'];
const flag = join(PACKAGE_ROOT, 'data/images/twemoji/peru.png');

test('inputs, prompts and pictures are scored, with a vector patched in too', async () => {
  const items = [
    { input: 'Peru', options, answer: 'Lima' },
    { prompt: 'Q:Peru\nA:', options, answer: ['Lima', 'Oslo'] },
    { image: flag, options, answer: 'Lima' },
    { prompt: 'Q:<image>\nA:', image: flag, options: options.join('|') },
  ];
  await writeFile(at('items.jsonl'), items.map((item) => JSON.stringify(item)).join('\n'));
  const extract = ['extract', ...DEMO, '--task', 'country-capital', '--spec', 'text', '--prompts', '10'];
  await xpatch([...extract, '-o', at('capital.safetensors')]);
  const patch = ['--vector', at('capital.safetensors'), '--layers', '4'];
  const { code, stdout, stderr } = await xpatch(['score', at('items.jsonl'), ...DEMO, ...patch, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const result = JSON.parse(stdout);
  expect(result.accuracy).toMatchObject({ right: 3, n: 3 });
  expect(result.items.map(({ best }: { best: string }) => best)).toEqual(['Lima', 'Lima', 'Lima', 'Lima']);
  const scores = result.items.map(({ options: all }: { options: { logLikelihood: number }[] }) =>
    all.map(({ logLikelihood }) => logLikelihood),
  );
  expect(scores[1]).toEqual(scores[0].map((x: number) => expect.closeTo(x, 4)));
  expect(scores[3]).toEqual(scores[2].map((x: number) => expect.closeTo(x, 4)));
});

test('a table in, a table out, by the mean over tokens', async () => {
  await writeFile(at('items.csv'), 'input,options,answer\r\n"Peru",Lima|Tokyo,Lima\r\n"Japan",Lima|Tokyo,Tokyo\r\n');
  const out = ['--normalise', 'token', '-o', at('scores.csv'), '--report', at('page')];
  const { code, stdout } = await xpatch([
    'score',
    at('items.csv'),
    ...DEMO,
    '--template',
    'Q:{input}\\nA:{output}',
    ...out,
  ]);
  expect([code, stdout]).toEqual([
    0,
    expect.stringMatching(/^\d of 2 right: .*\n.*scores\.csv: 2 items\nReport: .*report\.html\n$/),
  ]);
  const table = await readFile(at('page/tables/items.csv'), 'utf8');
  expect(
    table
      .trim()
      .split(/\r?\n/)
      .map((line) => line.split(',')[0]),
  ).toEqual(['line', '2', '3']);
  expect(await readFile(at('page/report.html'), 'utf8')).toMatch(/\d of 2 right/);
  const lines = (await readFile(at('scores.csv'), 'utf8')).trim().split('\r\n');
  expect(lines[0]).toBe('line,option,tokens,log_likelihood,per_token,best,right');
  expect(lines.map((line) => line.split(',').slice(0, 2).join())).toEqual([
    'line,option',
    '2,Lima',
    '2,Tokyo',
    '3,Lima',
    '3,Tokyo',
  ]);
});

test('answers that are numbers are answers, null is none, and a list of one picture is that picture', async () => {
  const items = [
    { prompt: '1, 2, ', options: [3, 4], answer: 3 },
    { prompt: '1, 2, ', options: [3, 4], answer: null },
    { input: 'x', image: [flag], options, answer: 'Lima' },
    { input: 'x', image: flag, options, answer: 'Lima' },
  ];
  await writeFile(at('numbers.jsonl'), items.map((item) => JSON.stringify(item)).join('\n'));
  const { code, stdout } = await xpatch(['score', at('numbers.jsonl'), ...DEMO, '--json']);
  expect(code).toBe(0);
  const result = JSON.parse(stdout);
  expect(result.accuracy.n).toBe(3);
  expect(result.items[0].answers).toEqual(['3']);
  expect(result.items[2].options).toEqual(result.items[3].options);
});

test.each([
  ['{"input": "Peru"}', 'line 1 has no options'],
  ['{"input": "Peru", "options": ["a", "b"], "answer": "c"}', 'answer "c"'],
  ['\n{"options": ["a"]}', 'line 2 has neither'],
  ['{"prompt": "<image>", "options": ["a"]}', '1 <image> and 0 pictures'],
  ['{"prompt": "x", "options": ["a", "b"]}\n{"prompt": "x", "options": ["a", "a"]}', 'line 2 has the option "a" twice'],
  ['{"prompt": "x", "options": [1, "1"]}', 'line 1 has the option "1" twice'],
  ['{"prompt": "x", "options": [""]}', 'line 1 has an empty option'],
  ['{"prompt": "x", "options": [null]}', 'line 1 has a field options that is neither'],
  ['{"prompt": "x", "options": {"a": 1}}', 'line 1 has a field options that is neither'],
  ['{"prompt": "x", "options": ["1", "2"], "answer": 3}', 'line 1 has the answer "3"'],
  ['{"prompt": "x", "options": ["1", "2"], "answer": {"n": 1}}', 'line 1 has a field answer that is neither'],
  ['{"prompt": "x", "options": ["a"], "image": 1}', '0 <image> and 1 pictures'],
  ['{"prompt": "x", "options": ["a"], "image": {"path": "x.png"}}', 'line 1 has a field image that is neither'],
  ['{"input": "x", "options": ["a"], "image": ["x.png", "y.png"]}', 'line 1 has 2 pictures'],
  ['{"input": "x", "options": ["a"], "image": ["none.png"]}', 'none.png: there is no such file'],
  ['{"prompt": "x", "options": ["a"]}\n{"prompt": "", "options": ["a"]}', 'line 2: The prompt is empty'],
  ['[1]', 'not a JSON object'],
  ['{', 'not JSON'],
  ['', 'has no items'],
])('refused: %s', async (text, message) => {
  await writeFile(at('bad.jsonl'), text);
  const { code, stderr } = await xpatch(['score', at('bad.jsonl'), ...DEMO]);
  expect(code).not.toBe(0);
  expect(stderr).toContain(message);
});

test('a picture that is missing in a late line is told before anything is scored', async () => {
  // The first line cannot be scored.
  const line = (input: string, image?: string) => JSON.stringify({ input, options: ['a', 'b'], image });
  const long = line('x '.repeat(9000));
  await writeFile(at('late.jsonl'), [long, ...Array(20).fill(line('x')), line('x', 'none.png')].join('\n'));
  const { stderr } = await xpatch(['score', at('late.jsonl'), ...DEMO]);
  expect(stderr).toMatch(/line 22: .*none\.png/);
  await writeFile(at('long.jsonl'), long);
  expect((await xpatch(['score', at('long.jsonl'), ...DEMO])).stderr).toMatch(/CONTEXT_OVERFLOW/);
});

test.each([
  [['--strength', '2'], /--strength needs a patch/],
  [['--op', 'add'], /--op needs a patch/],
  [['--positions', 'last'], /--positions needs a patch/],
  [['--at', 'x'], /--at needs a patch/],
  [['--vector-position', '0'], /--vector-position needs a patch/],
  [['--numbering', 'applied'], /--numbering needs a patch/],
  [['--layers', '1'], /--layers needs a patch/],
  [['--vector', 'x.safetensors'], /--vector needs --layers/],
])('half a patch is refused: %j', async (more, message) => {
  await writeFile(at('half.jsonl'), '{"prompt":"x","options":["a","b"]}');
  const { code, stderr } = await xpatch(['score', at('half.jsonl'), ...DEMO, ...more]);
  expect([code, stderr]).toEqual([2, expect.stringMatching(message)]);
});
