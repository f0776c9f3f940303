// Models whose states cannot be patched as promised are refused: tiny ones with random weights, of every kind.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadModel } from '../../src/model/load-model.js';
import type { PassRow } from '../../src/model/pass.js';
import { gguf, type Tensor } from '../native/gguf-writer.js';
import { randomVector } from '../native/helpers.js';
import { temporaryFolder } from '../unit/helpers.js';
import { FOLDER } from './families.js';

const folder = await temporaryFolder();
const [N_EMBD, N_FF, N_VOCAB] = [32, 48, 64];
let files = 0;

function write(architecture: string, more: Parameters<typeof gguf>[0], tensors: Tensor[]): string {
  const own = {
    vocab_size: N_VOCAB,
    context_length: 128,
    embedding_length: N_EMBD,
    feed_forward_length: N_FF,
    'attention.head_count': 2,
    'attention.layer_norm_rms_epsilon': Float32Array.of(1e-5),
    ...more,
  };
  const metadata = Object.fromEntries(Object.entries(own).map(([key, value]) => [`${architecture}.${key}`, value]));
  const path = join(folder, `${files++}.gguf`);
  writeFileSync(
    path,
    gguf({ 'general.architecture': architecture, 'tokenizer.ggml.model': 'none', ...metadata }, tensors),
  );
  return path;
}

function tensor(name: string, ...shape: number[]): Tensor {
  const n = shape.reduce((product, side) => product * side, 1);
  return { name: `${name}.weight`, shape, data: randomVector(n, name.length + n, 0.2) };
}

const block = (i: number, ...parts: Tensor[]): Tensor[] =>
  [
    ...parts,
    tensor('attn_norm', N_EMBD),
    tensor('ffn_norm', N_EMBD),
    tensor('ffn_gate', N_EMBD, N_FF),
    tensor('ffn_up', N_EMBD, N_FF),
    tensor('ffn_down', N_FF, N_EMBD),
  ].map((part) => ({ ...part, name: `blk.${i}.${part.name}` }));
const attention = (nKv: number) => [
  tensor('attn_q', N_EMBD, N_EMBD),
  tensor('attn_k', N_EMBD, nKv),
  tensor('attn_v', N_EMBD, nKv),
  tensor('attn_output', N_EMBD, N_EMBD),
];
const EMBEDDING = tensor('token_embd', N_EMBD, N_VOCAB);

/** A Llama; llama.cpp does not read the keys of others. */
const llama = (more: Parameters<typeof gguf>[0] = {}, tensors: Tensor[] = []) =>
  write('llama', { block_count: 1, ...more }, [
    EMBEDDING,
    tensor('output_norm', N_EMBD),
    ...block(0, ...attention(N_EMBD)),
    ...tensors,
  ]);

/** LFM2: a block with a short convolution, whose state is recurrent, and one with attention. */
const hybrid = () =>
  write('lfm2', { block_count: 2, 'attention.head_count_kv': Int32Array.of(0, 2), 'shortconv.l_cache': 3 }, [
    EMBEDDING,
    tensor('token_embd_norm', N_EMBD),
    ...block(
      0,
      tensor('shortconv.conv', 3, N_EMBD),
      tensor('shortconv.in_proj', N_EMBD, 3 * N_EMBD),
      tensor('shortconv.out_proj', N_EMBD, N_EMBD),
    ),
    ...block(1, ...attention(N_EMBD), tensor('attn_q_norm', N_EMBD / 2), tensor('attn_k_norm', N_EMBD / 2)),
  ]);

describe('no decoder with attention: not loaded', () => {
  test.each([
    ['t5', {}, 'an encoder-decoder model'],
    ['bert', {}, 'a text encoder'],
    ['dream', {}, 'a diffusion model'],
    ['mamba', { 'attention.head_count': 0 }, 'a recurrent model'],
    ['rwkv7', {}, 'a recurrent model'],
    ['eagle3', {}, 'a draft head'],
    ['wavtokenizer-dec', {}, 'an audio model'],
    ['llama', { 'attention.causal': false }, 'a model whose tokens see later ones'],
  ])('%s', async (architecture, more, what) => {
    const path = write(architecture, { block_count: 1, ...more }, [EMBEDDING]);
    await expect(loadModel(path, { device: 'cpu' })).rejects.toMatchObject({
      code: 'ARCHITECTURE_UNSUPPORTED',
      message: expect.stringContaining(`'${architecture}' is ${what}`),
    });
  });
});

describe('states that a hook does not hold: run, but neither read nor patched', () => {
  async function refusal(path: string) {
    await using model = await loadModel(path, { device: 'cpu', threads: 1 });
    const context = await model.createContext({ nCtx: 64 });
    const prompt = await model.prompt({ tokens: [3, 4, 5] });
    const [plain] = await context.pass([{ prompt, logits: 'last' }]);
    expect(plain?.logits?.data.every(Number.isFinite)).toBe(true);
    const zero = { hook: 'resid_post', layers: 0, positions: 'last', op: 'zero' } as const;
    const run = (row: Partial<PassRow>) =>
      context.pass([{ prompt, logits: 'last', ...row }]).then(() => 'it ran', String);
    const read = await run({ capture: { layers: 'all', positions: 'last' } });
    const patched = await run({ interventions: [zero] });
    expect(patched).toBe(read);
    return read;
  }

  test.each([
    ['recurrent layers among others', hybrid, /recurrent state/],
    [
      'keys and values of earlier layers',
      () => llama({ 'attention.shared_kv_layers': 1 }),
      /keys and values of earlier/,
    ],
    ['an embedding a layer', () => llama({ embedding_length_per_layer_input: 8 }), /its own embedding of the token/],
    ['several residual streams', () => llama({ 'hyper_connection.count': 4 }), /several residual streams/],
  ])('%s', async (_, make, why) => {
    const message = await refusal(make());
    expect(message).toMatch(why);
    expect(message).toMatch(/The model does run without captures and interventions/);
  });

  test('the same Llama without these keys is read and patched', async () => {
    expect(await refusal(llama({ 'attention.shared_kv_layers': 0, 'hyper_connection.count': 1 }))).toBe('it ran');
  });
});

test('an mmproj that puts tokens around pictures which the vocabulary lacks', async () => {
  const mmproj = join(FOLDER, 'smolvlm.mmproj.gguf');
  await using model = await loadModel(join(FOLDER, 'pixtral.gguf'), { device: 'cpu', threads: 1, mmproj });
  const prompt = await model.prompt({ image: join(FOLDER, 'pictures', 'tiles-a.png') });
  const context = await model.createContext({ nCtx: 256 });
  await expect(context.pass([{ prompt, logits: 'last' }])).rejects.toMatchObject({
    code: 'MMPROJ_INVALID',
    message: expect.stringMatching(/no token that this projector puts around pictures/),
  });
});
