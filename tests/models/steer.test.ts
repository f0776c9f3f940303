// The command on the shipped model: a direction between two prompts, its files, and what it does.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';

const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
const DEMO = ['-m', 'demo', '--device', 'cpu'];
const PAIR = ['--positive', 'Q:Peru\\nA:', '--negative', 'Q:Japan\\nA:'];
const ASK = ['-p', 'Q:Chile\\nA:', '-n', '4'];

test('a direction is made, written and used, from texts, files and vectors alike', async () => {
  const made = await xpatch([
    'steer',
    ...DEMO,
    ...PAIR,
    ...ASK,
    '--layers',
    '3',
    '--strengths=0,1',
    '--json',
    '-o',
    at('a.safetensors'),
  ]);
  expect({ code: made.code, stderr: made.stderr }).toEqual({ code: 0, stderr: '' });
  const { answers, layers } = JSON.parse(made.stdout);
  expect(layers).toEqual([3]);
  const plain = JSON.parse((await xpatch(['run', ...DEMO, ...ASK, '--json'])).stdout);
  expect(answers[0]).toMatchObject({ strength: 0, text: plain.text });
  expect(answers[1].text).not.toBe(plain.text);
  await writeFile(at('plus.txt'), 'Q:Peru\\nA:\n\n');
  await writeFile(at('minus.txt'), 'Q:Japan\\nA:\n');
  const files = ['--positive', at('plus.txt'), '--negative', at('minus.txt')];
  expect((await xpatch(['steer', ...DEMO, ...files, '-o', at('b.safetensors')])).code).toBe(0);
  const ends = [
    ['plus', PAIR[1] as string],
    ['minus', PAIR[3] as string],
  ];
  for (const [name, prompt] of ends) {
    await xpatch(['capture', ...DEMO, '-p', prompt as string, '--positions', 'last', '-o', at(`${name}.safetensors`)]);
  }
  const vectors = ['--positive', at('plus.safetensors'), '--negative', at('minus.safetensors')];
  expect((await xpatch(['steer', ...DEMO, ...vectors, '-o', at('c.safetensors')])).code).toBe(0);
  const [a, b, c] = [await load('a'), await load('b'), await load('c')];
  for (const other of [b, c]) expect(Math.min(...a.cosine(other))).toBeGreaterThan(0.99999);
});

const load = (name: string) => TaskVector.load(at(`${name}.safetensors`));

test('the numbering of a control vector may be given, and is recorded', async () => {
  await xpatch(['steer', ...DEMO, ...PAIR, '-o', at('n.safetensors')]);
  const said = await xpatch(['steer', ...DEMO, ...PAIR, '-o', at('n.gguf')]);
  expect(said.stdout).toMatch(/n\.gguf: 7 layers/); // none for layer 0
  const ask = async (...args: string[]) => {
    const { stdout, code } = await xpatch(['run', ...DEMO, ...ASK, '--op', 'add', ...args, '--json']);
    expect(code).toBe(0);
    return JSON.parse(stdout);
  };
  const moved = await ask('--vector', at('n.gguf'), '--numbering', 'measured', '--layers', '2');
  expect(moved.patch.vector).toMatchObject({ numbering: 'measured' });
  const byHand = (await TaskVector.load(at('n.safetensors'))).state(3);
  const { delta } = moved.patch.interventions?.[0] ?? moved.patch;
  expect(delta).toBeCloseTo(Math.hypot(...byHand), 2); // direction.3, at layer 2
  const refused = await xpatch([
    'run',
    ...DEMO,
    ...ASK,
    '--vector',
    at('n.safetensors'),
    '--layers',
    '2',
    '--numbering',
    'applied',
  ]);
  expect([refused.code, refused.stderr]).toEqual([2, expect.stringMatching(/has its own layer numbers/)]);
  const prompts = await xpatch(['steer', ...DEMO, ...PAIR, ...ASK, '--numbering', 'applied']);
  expect([prompts.code, prompts.stderr]).toEqual([2, expect.stringMatching(/not for prompts/)]);
});

test('a control vector steers as the vector that it was made from, at all layers but 0', async () => {
  await xpatch(['steer', ...DEMO, ...PAIR, '-o', at('v.safetensors')]);
  await xpatch(['steer', ...DEMO, ...PAIR, '-o', at('v.gguf')]);
  const [one, other] = await Promise.all(
    ['v.safetensors', 'v.gguf'].map((name) =>
      xpatch(['steer', ...DEMO, '--vector', at(name), ...ASK, '--layers', '3,4', '--strengths=-1,2', '--json']),
    ),
  );
  expect(JSON.parse(one?.stdout ?? '').answers).toEqual(JSON.parse(other?.stdout ?? '').answers);
});

test('the answers stand side by side, and in a report', async () => {
  const args = ['steer', ...DEMO, ...PAIR, ...ASK, '--strengths=-1,0,1', '--report', at('report')];
  const { code, stdout } = await xpatch(args);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^Strength, and what the model says with it at layers 2, 3, 4, 5:\n-1 {2}/);
  expect(await readFile(at('report/report.html'), 'utf8')).toContain('Answers by strength');
});

test.each([
  [[...PAIR], /nothing to do/],
  [[...ASK], /--positive and --negative, or a --vector/],
  [[...ASK, '--positive', 'x'], /--positive and --negative/],
  [
    [...ASK, '--positive', './none.txt', '--negative', 'y'],
    /FILE_NOT_FOUND: Cannot read the file of prompts .*none\.txt/,
  ],
  [
    [...ASK, '--positive', 'x', '--negative', 'sad.JSONL'],
    /FILE_NOT_FOUND: Cannot read the file of prompts sad\.JSONL/,
  ],
  [[...ASK, ...PAIR, '--vector', 'x.safetensors'], /whole direction/],
  [[...ASK, ...PAIR, '--strengths', '1,x'], /"x" is not a number/],
  [[...ASK, ...PAIR, '--layers', '99'], /layer/i],
  ...[
    '--layers=1',
    '--strengths=2',
    '--image=x.png',
    '--positions=last',
    '--at=x',
    '--steps=all',
    '-n=4',
    '--report=x',
  ].map((option): [string[], RegExp] => [[...PAIR, option, '-o', 'x.safetensors'], /needs a prompt to steer/]),
  [[...PAIR, '--positive', 'y', '--method', 'pca', '-o', 'x.safetensors'], /do not make pairs/],
])('refused: %j', async (more, message) => {
  const { code, stderr } = await xpatch(['steer', ...DEMO, ...more]);
  expect({ code, stderr }).toEqual({ code: expect.any(Number), stderr: expect.stringMatching(message) });
  expect(code).not.toBe(0);
});
