// A conversion killed at any moment goes on, leaves nothing half under a final name, and ends as an undisturbed one.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, jest, test } from '@jest/globals';
import { Random } from '../../src/util/random.js';
import { writeSafetensors } from '../../src/util/safetensors.js';
import { ending, faultFolder, kill, launch, MAIN } from './helpers.js';

jest.setTimeout(300_000);
const folder = faultFolder();
const checkpoint = join(folder, 'big');
const TINY = fileURLToPath(new URL('../fixtures/checkpoints/persimmon/', import.meta.url));
const N_EMBD = 512;
const N_FF = 2048;
const N_LAYERS = 12;

/** A Persimmon of 150 MB: some seconds of work. */
beforeAll(async () => {
  mkdirSync(checkpoint);
  const config = JSON.parse(readFileSync(join(TINY, 'config.json'), 'utf8'));
  const sizes = { hidden_size: N_EMBD, intermediate_size: N_FF, num_hidden_layers: N_LAYERS, num_attention_heads: 8 };
  writeFileSync(join(checkpoint, 'config.json'), JSON.stringify({ ...config, ...sizes }));
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) {
    writeFileSync(join(checkpoint, file), readFileSync(join(TINY, file)));
  }
  const random = new Random(1, 'weights');
  const noise = Float32Array.from({ length: 1 << 16 }, () => random.uniform() - 0.5);
  const tensors: Parameters<typeof writeSafetensors>[1] = {};
  const add = (name: string, ...shape: number[]) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    // Every tensor differs, so that none can stand in another's place.
    const shift = Object.keys(tensors).length * 97;
    for (let i = 0; i < data.length; i++) data[i] = noise[(i + shift) & 0xffff] as number;
    (tensors as Record<string, unknown>)[name] = { data, shape };
  };
  const both = (name: string, ...shape: number[]) => {
    add(`${name}.weight`, ...shape);
    add(`${name}.bias`, shape[0] as number);
  };
  add('model.embed_tokens.weight', config.vocab_size, N_EMBD);
  add('lm_head.weight', config.vocab_size, N_EMBD);
  both('model.final_layernorm', N_EMBD);
  for (let i = 0; i < N_LAYERS; i++) {
    const layer = `model.layers.${i}`;
    both(`${layer}.input_layernorm`, N_EMBD);
    both(`${layer}.post_attention_layernorm`, N_EMBD);
    both(`${layer}.self_attn.query_key_value`, 3 * N_EMBD, N_EMBD);
    both(`${layer}.self_attn.dense`, N_EMBD, N_EMBD);
    both(`${layer}.self_attn.q_layernorm`, N_EMBD / 8);
    both(`${layer}.self_attn.k_layernorm`, N_EMBD / 8);
    both(`${layer}.mlp.dense_h_to_4h`, N_FF, N_EMBD);
    both(`${layer}.mlp.dense_4h_to_h`, N_EMBD, N_FF);
  }
  await writeSafetensors(join(checkpoint, 'model.safetensors'), tensors);
});

const start = (output: string) =>
  launch(process.execPath, [
    '--no-warnings',
    MAIN,
    'models',
    'convert',
    checkpoint,
    '-o',
    output,
    '--type',
    'f32',
    '--json',
  ]);

async function digest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}

/** Bytes of the partial file that will never be written again. */
function written(output: string): number {
  const state = join(output, 'big-f32.part.json');
  return existsSync(state) ? JSON.parse(readFileSync(state, 'utf8')).written['big-f32.gguf.part'] : 0;
}

test('SIGKILL before, in and behind the first part; then the same bytes', async () => {
  const whole = join(folder, 'whole');
  const undisturbed = await ending(start(whole));
  expect(undisturbed).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(undisturbed.stdout)).toMatchObject({ family: 'persimmon', resumedFrom: 0 });
  expect(readdirSync(whole)).toEqual(['big-f32.gguf']);

  const output = join(folder, 'killed');
  for (const moment of [() => existsSync(join(output, 'big-f32.gguf.part')), () => written(output) > 0]) {
    const child = start(output);
    const ended = ending(child);
    await until(moment);
    kill(child, true);
    expect((await ended).signal).toBe('SIGKILL');
    expect(readdirSync(output).filter((name) => name.endsWith('.gguf'))).toEqual([]);
  }
  const resumed = await ending(start(output));
  expect(resumed).toMatchObject({ code: 0, stderr: '' });
  expect(JSON.parse(resumed.stdout).resumedFrom).toBeGreaterThan(50e6);
  expect(readdirSync(output)).toEqual(['big-f32.gguf']);
  expect(await digest(join(output, 'big-f32.gguf'))).toBe(await digest(join(whole, 'big-f32.gguf')));
});

test('Ctrl-C ends it cleanly and says how to go on', async () => {
  const output = join(folder, 'interrupted');
  const child = start(output);
  const ended = ending(child);
  await until(() => existsSync(join(output, 'big-f32.part.json')));
  child.kill('SIGINT');
  const { code, stdout } = await ended;
  expect(code).toBe(130);
  expect(JSON.parse(stdout).error).toMatchObject({
    code: 'ABORTED',
    message: expect.stringMatching(/same command again/),
  });
  expect(readdirSync(output).filter((name) => name.endsWith('.gguf'))).toEqual([]);
  expect(await ending(start(output))).toMatchObject({ code: 0 });
});

test('a full disk: a coded error, and what is there can go on', async () => {
  const output = join(folder, 'full');
  const limited = launch('/bin/sh', [
    '-c',
    `ulimit -f 40000; exec ${process.execPath} --no-warnings ${MAIN} models convert ${checkpoint} -o ${output} --type f32 --json`,
  ]);
  const { code, stdout } = await ending(limited);
  expect(code).toBe(1);
  expect(JSON.parse(stdout).error.code).toBe('FILE_WRITE');
  expect(readdirSync(output).filter((name) => name.endsWith('.gguf'))).toEqual([]);
  expect(await ending(start(output))).toMatchObject({ code: 0 });
});
