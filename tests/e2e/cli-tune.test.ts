import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { TunedLens } from '../../src/lens/tuned-lens.js';
import { Random } from '../../src/util/random.js';
import { commandLine, FIXTURES, finish } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const TUNE = ['tune', '-m', model('llama'), '--text', 'book.txt'];

beforeAll(() => {
  const random = new Random(1, 'book');
  writeFileSync(join(cli.folder, 'book.txt'), Array.from({ length: 9000 }, () => random.integer(10)).join(''));
  writeFileSync(join(cli.folder, 'short.txt'), '123');
  mkdirSync(join(cli.folder, 'full'));
  writeFileSync(join(cli.folder, 'full', 'notes.txt'), 'mine');
});

test('a lens of a text is written, loads, and is better than the plain one', async () => {
  const found = await cli.json(...TUNE, '--prompts', '60', '-o', 'lens.safetensors');
  expect(found).toMatchObject({
    output: 'lens.safetensors',
    layers: [0, 1],
    fit: { prompts: 45, validationPrompts: 15, seed: 1 },
    quality: { prompts: 35, positions: 280 },
  });
  const { mean, layers } = found.quality;
  expect(mean.gain.low).toBeGreaterThan(0);
  expect(mean.gain.value).toBeCloseTo(mean.plain.value - mean.tuned.value, 6);
  expect(layers.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1]);
  const lens = await TunedLens.load(join(cli.folder, 'lens.safetensors'), found.model);
  expect(lens.translators.map(({ strength }) => strength)).toEqual(found.strengths);
  expect(lens.info.fit).toEqual(found.fit);
});

test('--report writes the table and the figure', async () => {
  const { code, stdout, stderr } = await cli.run([
    ...TUNE,
    '--prompts',
    '20',
    '-o',
    'r.safetensors',
    '--report',
    'run',
    '--quiet',
  ]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/Gain of the tuned lens, mean over layers: /);
  expect(stdout).toMatch(/\nr\.safetensors\nReport: run\/report\.html\n$/);
  const lines = readFileSync(join(cli.folder, 'run', 'tables', 'kl-per-layer.csv'), 'utf8')
    .trim()
    .split('\r\n');
  expect(lines.map((line) => line.split(',')[0])).toEqual(['layer', '0', '1', 'mean']);
  expect(readdirSync(join(cli.folder, 'run', 'figures'))).toEqual(expect.arrayContaining(['kl.svg', 'kl.png']));
  expect(JSON.parse(readFileSync(join(cli.folder, 'run', 'manifest.json'), 'utf8'))).toMatchObject({
    status: 'complete',
    experiment: 'tune',
    options: { text: 'book.txt', prompts: 20, seed: 1 },
  });
});

describe('what cannot be done is an error, and leaves no file', () => {
  test.each<[string, string[], string, RegExp]>([
    ['no output', TUNE, 'INVALID_ARGUMENT', /output/],
    ['too few prompts', [...TUNE, '--prompts', '4', '-o', 'no.safetensors'], 'INVALID_ARGUMENT', /whole number from 5/],
    [
      'a missing text',
      ['tune', '-m', model('llama'), '--text', 'nope', '-o', 'no.safetensors'],
      'FILE_NOT_FOUND',
      /nope/,
    ],
    [
      'a short text',
      ['tune', '-m', model('llama'), '--text', 'short.txt', '-o', 'no.safetensors'],
      'INVALID_ARGUMENT',
      /Give a longer one/,
    ],
    [
      'a file that is not a text',
      ['tune', '-m', model('llama'), '--text', model('llama'), '-o', 'no.safetensors'],
      'INVALID_ARGUMENT',
      /not a text in UTF-8/,
    ],
    ['an output that is the text', [...TUNE, '-o', 'book.txt'], 'FILE_WRITE', /reads this file/],
    ['a report over something', [...TUNE, '-o', 'no.safetensors', '--report', 'full'], 'FILE_WRITE', /not empty/],
    [
      'a model without a tokenizer',
      ['tune', '-m', model('qwen2'), '--text', 'book.txt', '-o', 'no.safetensors'],
      'TOKEN_INVALID',
      /no tokenizer/,
    ],
  ])('%s', async (_, args, code, message) => {
    const error = await cli.error(...args);
    const exit = code === 'INVALID_ARGUMENT' ? 2 : 1;
    expect(error).toEqual({ code, message: expect.stringMatching(message), exit });
    expect(existsSync(join(cli.folder, 'no.safetensors'))).toBe(false);
  });
});

test('an interrupt leaves no lens', async () => {
  const child = cli.start(['tune', '-m', 'demo', '--prompts', '5000', '-o', 'cut.safetensors']);
  const ended = finish(child);
  await new Promise<void>((resolve) =>
    child.stderr?.on('data', (chunk) => /reading prompts|fitting/.test(String(chunk)) && resolve()),
  );
  child.kill('SIGINT');
  const { code, stderr } = await ended;
  expect(code).toBe(130);
  expect(stderr).toMatch(/xpatch: ABORTED: Interrupted\.\n$/);
  expect(readdirSync(cli.folder).filter((file) => file.includes('cut'))).toEqual([]);
});

test('help has examples', async () => {
  const { code, stdout } = await cli.run(['tune', '--help']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/Examples:[\s\S]*xpatch tune /);
});
