// Points are found by structure: the same laws on tiny random models of architectures that no fixture has.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Edge, HookName, Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { HiddenStates } from '../../src/model/hidden-states.js';
import type { Model } from '../../src/model/model.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { temporaryFolder } from '../unit/helpers.js';
import { gguf, type Tensor } from './gguf-writer.js';
import { openModel, randomVector, tokenPrompt } from './helpers.js';

const folder = await temporaryFolder();
const [E, FF, VOCAB, LAYERS] = [32, 48, 64, 2];
const EXPERTS = 4;

function tensor(name: string, ...shape: number[]): Tensor {
  const n = shape.reduce((product, side) => product * side, 1);
  const norm = name.includes('norm.weight');
  return { name, shape, data: randomVector(n, name.length + n, 0.3).map((x) => (norm ? 1 + x / 3 : x)) };
}
const weight = (name: string, ...shape: number[]) => tensor(`${name}.weight`, ...shape);
const both = (name: string, ...shape: number[]) => [
  weight(name, ...shape),
  tensor(`${name}.bias`, shape.at(-1) as number),
];
const norms = (...names: string[]) => names.map((name) => weight(name, E));
const biased = (...names: string[]) => names.flatMap((name) => both(name, E));
const split = (kv: number) => [weight('attn_q', E, E), weight('attn_k', E, kv), weight('attn_v', E, kv)];
const output = weight('attn_output', E, E);
const gated = [weight('ffn_gate', E, FF), weight('ffn_up', E, FF), weight('ffn_down', FF, E)];
const plain = [...both('ffn_up', E, FF), ...both('ffn_down', FF, E)];
const experts = (size: number) => [
  weight('ffn_gate_inp', E, EXPERTS),
  weight('ffn_gate_exps', E, size, EXPERTS),
  weight('ffn_up_exps', E, size, EXPERTS),
  weight('ffn_down_exps', size, E, EXPERTS),
];
const MOE = { expert_count: EXPERTS, expert_used_count: 2 };
const f32 = (x: number) => Float32Array.of(x);

interface Kind {
  keys?: Parameters<typeof gguf>[0];
  block: Tensor[];
  more?: Tensor[];
  /** Points that it has not. */
  without: HookName[];
}

/** By llama.cpp's names of the architectures. */
const KINDS: Record<string, Kind> = {
  gpt2: {
    block: [...biased('attn_norm', 'ffn_norm'), ...both('attn_qkv', E, 3 * E), ...both('attn_output', E, E), ...plain],
    more: [...biased('output_norm'), weight('position_embd', E, 128)],
    without: ['router'],
  },
  bloom: {
    block: [...biased('attn_norm', 'ffn_norm'), ...both('attn_qkv', E, 3 * E), ...both('attn_output', E, E), ...plain],
    more: [...biased('output_norm', 'token_embd_norm')],
    without: ['attn_scores', 'router'],
  },
  falcon: {
    keys: { 'attention.head_count_kv': 1 },
    block: [
      ...biased('attn_norm'),
      weight('attn_qkv', E, E + 32),
      output,
      weight('ffn_up', E, FF),
      weight('ffn_down', FF, E),
    ],
    more: biased('output_norm'),
    without: ['resid_mid', 'router'],
  },
  phi2: {
    keys: { 'rope.dimension_count': 8 },
    block: [...biased('attn_norm'), ...both('attn_qkv', E, 3 * E), ...both('attn_output', E, E), ...plain],
    more: [...biased('output_norm'), ...both('output', E, VOCAB)],
    without: ['resid_mid', 'router'],
  },
  'command-r': {
    keys: { logit_scale: f32(0.5) },
    block: [...norms('attn_norm'), ...split(E), output, ...gated],
    more: norms('output_norm'),
    without: ['resid_mid', 'router'],
  },
  granite: {
    keys: {
      logit_scale: f32(4),
      residual_scale: f32(0.25),
      embedding_scale: f32(6),
      'attention.scale': f32(0.1),
      'attention.head_count_kv': 1,
    },
    block: [...norms('attn_norm', 'ffn_norm'), ...split(16), output, ...gated],
    more: norms('output_norm'),
    without: ['router'],
  },
  olmo2: {
    block: [
      ...norms('attn_q_norm', 'attn_k_norm', 'post_attention_norm', 'post_ffw_norm'),
      ...split(E),
      output,
      ...gated,
    ],
    more: [...norms('output_norm'), weight('output', E, VOCAB)],
    without: ['router'],
  },
  // Mixtral.
  llama: {
    keys: { ...MOE, 'attention.head_count_kv': 1 },
    block: [...norms('attn_norm', 'ffn_norm'), ...split(16), output, ...experts(FF)],
    more: norms('output_norm'),
    without: ['mlp_post'],
  },
  qwen2moe: {
    keys: { ...MOE, expert_feed_forward_length: 24, expert_shared_feed_forward_length: 40 },
    block: [
      ...norms('attn_norm', 'ffn_norm'),
      ...split(E).flatMap((one) => [one, { ...tensor('bias', E), name: one.name.replace('weight', 'bias') }]),
      output,
      ...experts(24),
      weight('ffn_gate_inp_shexp', E),
      weight('ffn_gate_shexp', E, 40),
      weight('ffn_up_shexp', E, 40),
      weight('ffn_down_shexp', 40, E),
    ],
    more: [...norms('output_norm'), weight('output', E, VOCAB)],
    without: ['mlp_post'],
  },
};

function write(architecture: string, { keys, block, more = [] }: Kind): string {
  const own = {
    vocab_size: VOCAB,
    context_length: 128,
    block_count: LAYERS,
    embedding_length: E,
    feed_forward_length: FF,
    'attention.head_count': 2,
    'attention.layer_norm_rms_epsilon': f32(1e-5),
    'attention.layer_norm_epsilon': f32(1e-5),
    ...keys,
  };
  const metadata = Object.fromEntries(Object.entries(own).map(([key, value]) => [`${architecture}.${key}`, value]));
  const blocks = Array.from({ length: LAYERS }, (_, i) =>
    block.map((part) => ({ ...part, name: `blk.${i}.${part.name}` })),
  );
  const path = join(folder, `${architecture}.gguf`);
  const tensors = [weight('token_embd', E, VOCAB), ...more, ...blocks.flat()];
  const header = { 'general.architecture': architecture, 'tokenizer.ggml.model': 'none', ...metadata };
  writeFileSync(path, gguf(header, tensors));
  return path;
}

describe.each(Object.entries(KINDS))('%s', (name, kind) => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  beforeAll(async () => {
    model = await openModel(write(name, kind));
    context = await model.createContext({ nCtx: 64, kvType: 'f32', flashAttention: 'off' });
    prompt = await tokenPrompt(model, 11);
  });

  const read = async (hook: HookName, interventions: Intervention[] = [], edges: Edge[] = []) =>
    (await context.run({ prompt, capture: { hook }, interventions, edges })).states as HiddenStates;
  const close = (a: Float32Array, b: ArrayLike<number>, bound: number) => {
    const size = Array.from(b).reduce((worst, x) => Math.max(worst, Math.abs(x)), 0);
    const worst = a.reduce((far, x, i) => Math.max(far, Math.abs(x - (b[i] as number))), 0);
    expect(worst / size).toBeLessThan(bound);
  };

  test('has all points of its kind', () => {
    const missing = context.hooks.filter(({ layers }) => layers.length === 0).map(({ hook }) => hook);
    expect(missing).toEqual(kind.without);
  });

  test('parts sum to the output, patterns to 1, and patterns mix values to z', async () => {
    const [pre, attn, mlp, post] = [
      await read('resid_pre'),
      await read('attn_out'),
      await read('mlp_out'),
      await read('resid_post'),
    ];
    close(
      pre.data.map((x, i) => x + (attn.data[i] as number) + (mlp.data[i] as number)),
      post.data,
      1e-6,
    );
    expect(pre.select({ layers: [1] }).data).toEqual(post.select({ layers: [0] }).data);
    const [pattern, v, z] = [await read('pattern'), await read('v'), await read('z')];
    const shared = 2 / (v.heads?.length as number);
    for (const head of [0, 1]) {
      const row = pattern.head(1, head, 9);
      expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
      const mixed = z.head(1, head, 9).map(() => 0);
      row.forEach((part, key) => {
        v.head(1, Math.floor(head / shared), key).forEach((x, i) => {
          mixed[i] = (mixed[i] as number) + part * x;
        });
      });
      close(z.head(1, head, 9), mixed, 1e-5);
    }
  });

  test('states put back change no bit, and what is added to the MLP is added to the stream', async () => {
    for (const { hook, layers } of context.hooks.filter((point) => point.layers.length > 0)) {
      const layer = layers.at(-1) as number;
      const capture = { hook, layers: [layer], positions: [3] } as const;
      const before = await context.run({ prompt, capture, logits: 'all' });
      const edit: Intervention = { hook, layers: layer, positions: 3, op: 'replace', value: before.states.data };
      const same = await context.run({ prompt, capture, logits: 'all', interventions: [edit] });
      expect([hook, same.logits.data]).toEqual([hook, before.logits.data]);
    }
    const add = (hook: HookName): Intervention => ({
      hook,
      layers: 0,
      positions: 4,
      op: 'add',
      value: randomVector(E, 1),
    });
    close(
      (await read('resid_post', [add('mlp_out')])).data,
      (await read('resid_post', [add('resid_post')])).data,
      1e-5,
    );
  });

  test('edges are cut, by scores and by the mask alike', async () => {
    const edges: Edge[] = [{ layers: 'all', from: [0, 4], to: [6, -1] }];
    const pattern = await read('pattern', [], edges);
    expect([pattern.head(0, 1, 6)[4], pattern.head(1, 0, 10)[0]]).toEqual([0, 0]);
    expect(pattern.head(0, 1, 6).reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
    const flash = await model.createContext({ nCtx: 64, flashAttention: 'on' });
    const row = { prompt, edges, logits: 'last' } as const;
    const [byMask, byScores, uncut] = [
      await flash.run(row),
      await context.run(row),
      await flash.run({ prompt, logits: 'last' }),
    ];
    close(byMask.logits.data, byScores.logits.data, 0.02);
    expect(byMask.logits.data).not.toEqual(uncut.logits.data);
    await flash.dispose();
  });
});
