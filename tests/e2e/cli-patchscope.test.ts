import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { commandLine, FIXTURES } from './cli-helpers.js';

const cli = commandLine();
const model = (name: string) => join(FIXTURES, `${name}.gguf`);
const LLAMA = ['-m', model('llama')];
const SOURCE = ['--prompt', 'abc def'];
const TARGET = 'x -> x\\ny';

interface Decoded {
  sourceLayer: number;
  targetLayer: number;
  tokens: number[];
  delta: number;
}

test('every layer says what `run` says with the same patch, from a prompt as from a capture of it', async () => {
  const target = ['--target-prompt', TARGET, '-n', '5'];
  const found = await cli.json('patchscope', ...LLAMA, ...SOURCE, ...target);
  await cli.json('capture', ...LLAMA, ...SOURCE, '--positions', 'last', '-o', 'states.safetensors');
  const fromFile = await cli.json('patchscope', ...LLAMA, '--vector', 'states.safetensors', ...target);
  expect(fromFile.decoded).toEqual(found.decoded);

  expect(found).toMatchObject({ sourceModel: 'same', target: { prompt: { text: 'x -> x\ny' } } });
  expect(found.decoded.map((one: Decoded) => [one.sourceLayer, one.targetLayer])).toEqual([
    [0, 0],
    [1, 1],
    [2, 2],
  ]);
  const patch = ['--vector', 'states.safetensors', '--prompt', TARGET, '-n', '5'];
  for (const { sourceLayer, tokens, delta } of found.decoded as Decoded[]) {
    const run = await cli.json('run', ...LLAMA, ...patch, '--layers', `${sourceLayer}`);
    expect(tokens).toEqual(run.tokens);
    expect(delta).toBeCloseTo(run.patch.delta, 3);
  }
  const plain = await cli.json('run', ...LLAMA, '--prompt', TARGET, '-n', '5');
  expect(found.plain.tokens).toEqual(plain.tokens);
});

test('--literal and --no-bos are for the target prompt too, and control tokens in it are noted', async () => {
  await cli.json('capture', ...LLAMA, ...SOURCE, '--positions', 'last', '-o', 'one.safetensors');
  const decode = ['patchscope', ...LLAMA, '--vector', 'one.safetensors', '--target-prompt', 'x<s>y', '-n', '1'];
  const plain = ['--literal', '--no-bos'];
  const { target } = await cli.json(...decode, ...plain);
  const written = await cli.json('capture', ...LLAMA, '--prompt', 'x<s>y', ...plain, '-o', 'target.safetensors');
  expect(target.prompt.tokens).toEqual(written.prompt.tokens);
  expect((await cli.run(decode)).stderr).toMatch(/<s> .*--literal/);
  expect((await cli.run([...decode, ...plain])).stderr).toBe('');
});

test('layers and positions on both sides can be chosen', async () => {
  const where = ['--positions', '-2', '--layers', '0,2', '--target-layers', 'all', '--target-positions', '1'];
  const found = await cli.json('patchscope', ...LLAMA, ...SOURCE, ...where, '-n', '1');
  expect(found.source).toMatchObject({ position: found.sourcePosition, prompt: { text: 'abc def' } });
  expect(found.sourcePosition).toBe(found.source.prompt.tokens.length - 2);
  expect(found.targetPosition).toBe(1);
  expect(found.decoded.map((one: Decoded) => `${one.sourceLayer}>${one.targetLayer}`)).toEqual([
    '0>0',
    '0>1',
    '0>2',
    '2>0',
    '2>1',
    '2>2',
  ]);
});

test('another model of equal width decodes', async () => {
  const found = await cli.json('patchscope', ...LLAMA, ...SOURCE, '--target-model', model('llava'), '-n', '2');
  expect(found.sourceModel).toBe('foreign');
  expect(found.source.model.hash).not.toBe(found.target.model.hash);
  expect(found.decoded).toHaveLength(3);
});

test('the table has a line without a patch and one for each layer', async () => {
  const { code, stdout, stderr } = await cli.run(['patchscope', ...LLAMA, ...SOURCE, '-n', '3', '--quiet']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const lines = stdout.trimEnd().split('\n');
  expect(lines[0]).toMatch(/^source +target +change +what .* says$/);
  expect(lines.slice(1).map((line) => line.split(/ +/, 2).join(' ').trim().slice(0, 3))).toEqual([
    expect.stringMatching(/^non/),
    '0 0',
    '1 1',
    '2 2',
  ]);
});

describe('what cannot be done is an error', () => {
  test.each<[string, string[], string, RegExp]>([
    ['no source', [...LLAMA], 'INVALID_ARGUMENT', /--prompt, --prompt-file or --tokens/],
    ['two sources', [...LLAMA, ...SOURCE, '--vector', 'v'], 'INVALID_ARGUMENT', /--prompt needs a prompt/],
    ['a lonely vector position', [...LLAMA, ...SOURCE, '--vector-position', '1'], 'INVALID_ARGUMENT', /needs --vector/],
    [
      'a wrong target layer',
      [...LLAMA, ...SOURCE, '--target-layers', 'x'],
      'INVALID_ARGUMENT',
      /--target-layers takes/,
    ],
    [
      'a wrong target position',
      [...LLAMA, ...SOURCE, '--target-positions', 'x'],
      'INVALID_ARGUMENT',
      /--target-positions takes/,
    ],
    ['a layer too far', [...LLAMA, ...SOURCE, '--target-layers', '3'], 'LAYER_OUT_OF_RANGE', /layers 0 to 2/],
    ['a position too far', [...LLAMA, ...SOURCE, '--positions', '99'], 'POSITION_OUT_OF_RANGE', /99/],
    ['a missing vector', [...LLAMA, '--vector', 'nope'], 'FILE_NOT_FOUND', /nope/],
    [
      'another width',
      [...LLAMA, ...SOURCE, '--target-model', model('gemma3')],
      'VECTOR_MISMATCH',
      /width 64.*width 48/,
    ],
    ['an empty target', [...LLAMA, ...SOURCE, '--target-prompt', ''], 'PROMPT_EMPTY', /empty/],
  ])('%s', async (_, args, code, message) => {
    const error = await cli.error('patchscope', ...args);
    const exit = code === 'INVALID_ARGUMENT' ? 2 : 1;
    expect(error).toEqual({ code, message: expect.stringMatching(message), exit });
  });
});

test('help shows the identity prompt and examples', async () => {
  const { code, stdout } = await cli.run(['patchscope', '--help']);
  expect(code).toBe(0);
  expect(stdout.replace(/\s+/g, ' ')).toContain('cat -> cat\\n1135 -> 1135\\nhello -> hello\\n?');
  expect(stdout).toMatch(/Examples:[\s\S]*xpatch patchscope /);
});
