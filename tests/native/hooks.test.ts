// Laws that hold at every point of every family, whatever its weights are. The points are found by the graph's structure, so
// that each of these would break if a wrong node had been taken.

import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Edge, HookName, Intervention } from '../../src/hooks/types.js';
import { HOOKS } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { ContextOptions } from '../../src/model/context-options.js';
import type { HiddenStates } from '../../src/model/hidden-states.js';
import type { Model } from '../../src/model/model.js';
import type { Capture, PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { expectError } from '../unit/helpers.js';
import { readTensor } from './gguf-contents.js';
import { fixture, load, logitsOf, picture, randomVector, tokenPrompt } from './helpers.js';

const FAMILIES = [
  'gemma2',
  'gemma3',
  'gemma4',
  'gpt-neox',
  'gpt-oss',
  'hy-v3',
  'llama',
  'mistral',
  'persimmon',
  'phi3',
  'qwen2',
  'qwen2-vl',
  'qwen3',
  'qwen3-vl',
];
/** Attention and MLP side by side. */
const PARALLEL = ['gpt-neox'];
const EXPERTS = ['gpt-oss', 'hy-v3'];
/** A learned number takes a part of every row of a pattern. */
const SINKS = ['gpt-oss'];

const exact: ContextOptions = { nCtx: 256, kvType: 'f32', flashAttention: 'off' };

/** Largest difference, in units of the largest number. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  let size = 0;
  for (let i = 0; i < a.length; i++) {
    worst = Math.max(worst, Math.abs((a[i] as number) - (b[i] as number)));
    size = Math.max(size, Math.abs(b[i] as number));
  }
  return worst / size;
}

const sum = (...parts: Float32Array[]) =>
  (parts[0] as Float32Array).map((_, i) => parts.reduce((total, part) => total + (part[i] as number), 0));

describe.each(FAMILIES)('%s', (name) => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  let nLayers: number;
  let present: HookName[];

  beforeAll(async () => {
    model = await load(name);
    context = await model.createContext(exact);
    prompt = await tokenPrompt(model, 23);
    nLayers = model.info.nLayers;
    present = context.hooks.filter(({ layers }) => layers.length > 0).map(({ hook }) => hook);
  });

  const run = <const Row extends Omit<PassRow, 'prompt' | 'logits'>>(row: Row, on = context) =>
    on.run({ prompt, logits: 'all', ...row } as const);
  async function read<const Names extends readonly HookName[]>(
    hooks: Names,
    { layer, ...more }: Partial<PassRow> & { layer?: number } = {},
  ) {
    const captures = hooks.map((hook): Capture => {
      const there = context.hooks[HOOKS.indexOf(hook)]?.layers ?? [];
      return { hook, layers: layer === undefined ? there : [layer] };
    });
    const { captured } = await context.run({ prompt, ...more, captures });
    return Object.fromEntries(hooks.map((hook, i) => [hook, captured[i]])) as Record<Names[number], HiddenStates>;
  }

  test('has every point that its kind has, and says why not another', () => {
    const missing = [...(PARALLEL.includes(name) ? ['resid_mid'] : []), ...(EXPERTS.includes(name) ? [] : ['router'])];
    const points = context.hooks;
    expect(points.map(({ hook }) => hook)).toEqual(HOOKS);
    for (const { hook, layers, refusals } of points) {
      const one = hook === 'embed' || hook === 'final_norm';
      const full = one ? 1 : nLayers;
      if (hook === 'mlp_post' && EXPERTS.includes(name)) expect(layers.length).toBeLessThan(nLayers);
      else if (hook === 'router' && EXPERTS.includes(name)) expect(layers.length).toBeGreaterThan(0);
      else expect([hook, layers.length]).toEqual([hook, missing.includes(hook) ? 0 : full]);
      expect(refusals.every(({ reason }) => reason.length > 10)).toBe(true);
      expect(refusals.flatMap((refusal) => refusal.layers).length).toBe(one ? 0 : nLayers - layers.length);
    }
  });

  test('what attention and MLP add makes the output of each block', async () => {
    const s = await read(['embed', 'resid_pre', 'attn_out', 'mlp_out', 'resid_post', 'final_norm']);
    expect(s.resid_pre.select({ layers: [0] }).data).toEqual(s.embed.data);
    for (let layer = 0; layer < nLayers; layer++) {
      const [pre, attn, mlp, post] = (['resid_pre', 'attn_out', 'mlp_out', 'resid_post'] as const).map(
        (hook) => s[hook].select({ layers: [layer] }).data,
      ) as [Float32Array, Float32Array, Float32Array, Float32Array];
      // Gemma 4 has a factor on the output of a block.
      const at = post.findIndex((x) => Math.abs(x) > 0.5);
      const total = sum(pre, attn, mlp);
      const factor = name === 'gemma4' ? (post[at] as number) / (total[at] as number) : 1;
      expect(
        distance(
          total.map((x) => factor * x),
          post,
        ),
      ).toBeLessThan(1e-6);
      if (layer + 1 < nLayers) expect(s.resid_pre.select({ layers: [layer + 1] }).data).toEqual(post);
    }
    if (PARALLEL.includes(name)) return;
    const { resid_mid, resid_pre, attn_out } = await read(['resid_mid', 'resid_pre', 'attn_out']);
    expect(distance(sum(resid_pre.data, attn_out.data), resid_mid.data)).toBeLessThan(1e-6);
  });

  test('patterns are the softmax of the scores, sum to 1, and mix the values to z', async () => {
    // Layer by layer: their heads may differ.
    for (let layer = 0; layer < nLayers; layer++) {
      const { pattern, attn_scores, v, z } = await read(['pattern', 'attn_scores', 'v', 'z'], { layer });
      const heads = z.heads?.length as number;
      const shared = heads / (v.heads?.length as number);
      for (const [head, query] of [
        [0, 0],
        [heads - 1, 22],
        [heads >> 1, 13],
      ] as const) {
        const row = pattern.head(layer, head, query);
        const total = row.reduce((a, b) => a + b, 0);
        if (SINKS.includes(name)) expect(total).toBeLessThan(1);
        else expect(total).toBeCloseTo(1, 5);
        const scores = attn_scores.head(layer, head, query);
        const exps = scores.map((x) => Math.exp(x));
        const all = exps.reduce((a, b) => a + b, 0);
        expect(
          distance(
            exps.map((x) => (x / all) * total),
            row,
          ),
        ).toBeLessThan(1e-5);
        expect(scores.slice(query + 1).every((x) => x === Number.NEGATIVE_INFINITY)).toBe(true);
        const mixed = new Float64Array(z.head(layer, head, query).length);
        row.forEach((weight, key) => {
          const value = v.head(layer, Math.floor(head / shared), key);
          value.forEach((x, i) => {
            mixed[i] = (mixed[i] as number) + weight * x;
          });
        });
        expect(distance(mixed, z.head(layer, head, query))).toBeLessThan(2e-5);
      }
    }
  });

  test('states put back where they are change no bit, at any point', async () => {
    for (const hook of present) {
      const { layers } = context.hooks[HOOKS.indexOf(hook)] as (typeof context.hooks)[0];
      const layer = layers.at(-1) as number;
      const capture: Capture = { hook, layers: [layer], positions: [2, 11, -1] };
      const plain = await run({ capture });
      const interventions = plain.states.positions.map(
        (positions): Intervention => ({
          hook,
          layers: layer,
          positions,
          op: 'replace',
          value: plain.states.at(layer, positions),
        }),
      );
      const same = await run({ capture, interventions });
      expect([hook, same.logits.data]).toEqual([hook, plain.logits.data]);
      expect([hook, same.interventions.map(({ delta }) => delta)]).toEqual([hook, [0, 0, 0]]);
      const value = randomVector(plain.states.shape[2], 9);
      const added = interventions.map((edit): Intervention => ({ ...edit, op: 'add', value }));
      const changed = await run({ capture, interventions: added });
      expect([hook, distance(changed.logits.data, plain.logits.data) > 0]).toEqual([hook, true]);
    }
  });

  test('what is added to the MLP is added to the stream', async () => {
    const value = randomVector(model.info.nEmbd, 3);
    const at = (hook: HookName): Intervention => ({ hook, layers: 1, positions: [5, -1], op: 'add', value });
    const capture: Capture = { hook: 'resid_post', layers: [1] };
    const [mlp, post] = await Promise.resolve([
      await run({ capture, interventions: [at('mlp_out')] }),
      await run({ capture, interventions: [at('resid_post')] }),
    ]);
    if (name === 'gemma4') return; // the factor on the output of a block is between them
    expect(distance(mlp.states.data, post.states.data)).toBeLessThan(1e-6);
    expect(distance(mlp.logits.data, post.logits.data)).toBeLessThan(1e-4);
  });

  test('what is added to a head comes out through its columns of the output projection', async () => {
    const { z } = await read(['z'], { layer: 1 });
    const size = (z.shape[2] / (z.heads?.length as number)) as number;
    const value = randomVector(size, 5);
    const head = (z.heads?.length as number) - 1;
    const edit: Intervention = { hook: 'z', layers: 1, heads: [head], positions: 7, op: 'add', value };
    const capture: Capture = { hook: 'attn_out', layers: [1], positions: [7] };
    const [plain, added] = [await run({ capture }), await run({ capture, interventions: [edit] })];
    const weight = readTensor(fixture(`${name}.gguf`), 'blk.1.attn_output.weight');
    const nEmbd = model.info.nEmbd;
    const width = z.shape[2];
    const expected = Float32Array.from({ length: nEmbd }, (_, i) =>
      value.reduce((total, x, j) => total + x * (weight[i * width + head * size + j] as number), 0),
    );
    const change = added.states.data.map((x, i) => x - (plain.states.data[i] as number));
    // Behind a norm of the sum, the change is no longer the projection itself.
    if (!name.startsWith('gemma')) expect(distance(change, expected)).toBeLessThan(1e-4);
    else expect(distance(change, new Float32Array(nEmbd).fill(1))).toBeGreaterThan(0);
    // The same as adding it to the whole state.
    const whole = new Float32Array(width);
    whole.set(value, head * size);
    const again = await run({ capture, interventions: [{ ...edit, value: whole }] });
    expect(again.states.data).toEqual(added.states.data);
  });

  test('an edge that is cut takes nothing, the row is made of what is left, and flash attention says the same', async () => {
    const edges: Edge[] = [{ layers: 'all', from: [1, 2, 9], to: [9, 15, -1] }];
    const plain = await read(['pattern']);
    const cut = await read(['pattern'], { edges });
    const heads = plain.pattern.heads?.length as number;
    for (const query of [9, 15, 22]) {
      const [before, after] = [plain.pattern, cut.pattern].map((p) => p.head(0, heads - 1, query)) as [
        Float32Array,
        Float32Array,
      ];
      expect([1, 2, 9].map((key) => after[key])).toEqual([0, 0, 0]);
      if (SINKS.includes(name)) continue;
      const left = 1 - [1, 2, 9].reduce((total, key) => total + (before[key] as number), 0);
      const renormalised = before.map((x, key) => ([1, 2, 9].includes(key) ? 0 : x / left));
      expect(distance(after, renormalised)).toBeLessThan(1e-5);
    }
    const flash = await model.createContext({ ...exact, kvType: 'f16', flashAttention: 'on' });
    const off = await model.createContext({ ...exact, kvType: 'f16' });
    const [byMask, byScores, uncut] = [await run({ edges }, flash), await run({ edges }, off), await run({}, flash)];
    expect(distance(byMask.logits.data, byScores.logits.data)).toBeLessThan(0.02);
    expect(distance(byMask.logits.data, uncut.logits.data)).toBeGreaterThan(0.02);
    // What was cut is there again in the next pass.
    const again = await run({}, flash);
    expect(again.logits.data).toEqual(uncut.logits.data);
    const counted = byScores.interventions.map(({ delta }) => delta);
    // Nothing is cut where a window hides it anyway.
    expect(counted.every((delta) => delta % heads === 0)).toBe(true);
    expect(counted.filter((delta) => delta > 0).length).toBeGreaterThan(2);
    expect(byMask.interventions.map(({ delta }) => delta)).toEqual(counted);
    await flash.dispose();
    await off.dispose();
  });

  test('scores of minus infinity are a cut edge', async () => {
    const { attn_scores } = await read(['attn_scores']);
    const value = attn_scores.at(1, 15).slice();
    value[4] = Number.NEGATIVE_INFINITY; // head 0, position 4
    const scores: Intervention = { hook: 'attn_scores', layers: 1, positions: 15, op: 'replace', value };
    const edge: Edge = { layers: 1, heads: [0], from: [4], to: [15] };
    const [byScores, byEdge] = [await run({ interventions: [scores] }), await run({ edges: [edge] })];
    expect(byEdge.logits.data).toEqual(byScores.logits.data);
    expect(byEdge.interventions).toMatchObject([{ op: 'knock-out', layer: 1, position: 15, delta: 1 }]);
  });

  test('reads the same in pieces and beside other rows', async () => {
    const hooks = present.filter((hook) => !['embed', 'final_norm'].includes(hook));
    const captures = hooks.map((hook): Capture => {
      const { layers } = context.hooks[HOOKS.indexOf(hook)] as (typeof context.hooks)[0];
      return { hook, layers: layers.slice(-1), positions: [3, 12, -1] };
    });
    const edges: Edge[] = [{ layers: [0], from: [2], to: [12] }];
    const alone = await context.run({ prompt, captures, edges });
    const pieces = await model.createContext({ ...exact, nUbatch: 5 });
    const others = await Promise.all([1, 2].map((seed) => tokenPrompt(model, 10 + seed, seed)));
    const rows = [
      { prompt, captures },
      { prompt, captures, edges },
      ...others.map((one) => ({ prompt: one, captures: [] })),
    ];
    for (const result of [await pieces.run({ prompt, captures, edges }), (await context.pass(rows))[1]]) {
      hooks.forEach((hook, i) => {
        const [a, b] = [result?.captured?.[i], alone.captured[i]] as [HiddenStates, HiddenStates];
        const finite = (data: Float32Array) => data.map((x) => (Number.isFinite(x) ? x : 0));
        expect([hook, distance(finite(a.data), finite(b.data)) < 1e-4]).toEqual([hook, true]);
      });
    }
    await pieces.dispose();
  });
});

describe('operations', () => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  beforeAll(async () => {
    model = await load('llama');
    context = await model.createContext(exact);
    prompt = await tokenPrompt(model, 12);
  });
  const at = { hook: 'resid_post', layers: 1, positions: 4 } as const;
  const capture: Capture = { layers: [1], positions: [4] };
  const edited = async (...interventions: Intervention[]) =>
    (await context.run({ prompt, capture, interventions })).states.data;
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((total, x, i) => total + x * (b[i] as number), 0);

  test('project removes a direction or all others, by some strength', async () => {
    const h = await edited();
    const value = randomVector(h.length, 7, 3);
    const length = Math.sqrt(dot(value, value));
    const u = value.map((x) => x / length);
    const along = u.map((x) => x * dot(h, u));
    const removed = await edited({ ...at, op: 'project', value });
    expect(Math.abs(dot(removed, u))).toBeLessThan(1e-5);
    expect(
      distance(
        removed,
        h.map((x, i) => x - (along[i] as number)),
      ),
    ).toBeLessThan(1e-5);
    const kept = await edited({ ...at, op: 'project', value, keep: true });
    expect(distance(kept, along)).toBeLessThan(1e-4);
    const half = await edited({ ...at, op: 'project', value, factor: 0.5 });
    expect(
      distance(
        half,
        h.map((x, i) => x - 0.5 * (along[i] as number)),
      ),
    ).toBeLessThan(1e-5);
  });

  test('clamp bounds every number', async () => {
    const h = await edited();
    expect(await edited({ ...at, op: 'clamp', min: -0.1, max: 0.2 })).toEqual(
      h.map((x) => Math.fround(Math.min(Math.max(x, Math.fround(-0.1)), Math.fround(0.2)))),
    );
    expect(await edited({ ...at, op: 'clamp', max: 0 })).toEqual(h.map((x) => Math.min(x, 0)));
  });

  test('noise is seeded, other for each position, and of the size of the embeddings', async () => {
    const table = readTensor(fixture('llama.gguf'), 'token_embd.weight');
    const mean = table.reduce((a, b) => a + b, 0) / table.length;
    const deviation = Math.sqrt(table.reduce((a, b) => a + (b - mean) ** 2, 0) / table.length);
    expect(await context.embeddingDeviation()).toBeCloseTo(deviation, 5);
    const where: Capture = { hook: 'embed', positions: [2, 3, 4] };
    const plain = await context.run({ prompt, capture: where });
    const noisy = async (seed?: number) => {
      const noise: Intervention = {
        hook: 'embed',
        positions: [2, 3, 4],
        op: 'noise',
        factor: 3,
        ...(seed && { seed }),
      };
      const { states } = await context.run({ prompt, capture: where, interventions: [noise] });
      return states.data.map((x, i) => x - (plain.states.data[i] as number));
    };
    const [first, again, other] = [await noisy(), await noisy(1), await noisy(2)];
    expect(first).toEqual(again);
    expect(first).not.toEqual(other);
    const n = model.info.nEmbd;
    expect(first.slice(0, n)).not.toEqual(first.slice(n, 2 * n));
    const size = Math.sqrt(first.reduce((a, b) => a + b * b, 0) / first.length);
    expect(size / (3 * deviation)).toBeGreaterThan(0.8);
    expect(size / (3 * deviation)).toBeLessThan(1.2);
  });

  test('mean puts the mean of given states in place, of heads too', async () => {
    const prompts = await Promise.all([1, 2, 3].map((seed) => tokenPrompt(model, 8, seed)));
    const rows = prompts.map(
      (one) => ({ prompt: one, capture: { hook: 'z', layers: [0, 1], positions: [-1, 3] } }) as const,
    );
    const of = (await context.pass(rows)).map(({ states }) => states as HiddenStates);
    const z: Capture = { hook: 'z', layers: [1], positions: [4] };
    const heads = [1];
    const { states } = await context.run({
      prompt,
      capture: z,
      interventions: [{ hook: 'z', layers: 1, heads, positions: 4, op: 'mean', of }],
    });
    const plain = (await context.run({ prompt, capture: z })).states;
    const parts = of.flatMap((one) => one.positions.map((position) => one.head(1, 1, position)));
    const mean = parts[0]?.map(
      (_, i) => parts.reduce((a, b) => a + (b[i] as number), 0) / parts.length,
    ) as Float32Array;
    expect(distance(states.head(1, 1), mean)).toBeLessThan(1e-6);
    expect(states.head(1, 0)).toEqual(plain.head(1, 0));
  });

  test('a knock-out during generation holds at every token', async () => {
    const edges: Edge[] = [{ layers: 'all', from: [0, 1, 2], steps: 'all' }];
    const [cut] = await context.generate([{ prompt, edges }], { maxTokens: 4 });
    const [plain] = await context.generate([{ prompt }], { maxTokens: 4 });
    expect(cut?.interventions.map(({ step }) => step)).toEqual([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    expect(cut?.interventions.every(({ delta }) => delta > 0)).toBe(true);
    expect(plain?.interventions).toEqual([]);
    // The second token by a pass of its own, with the edge cut at the last two positions.
    const longer = await model.prompt({ tokens: [...prompt.tokens, cut?.tokens[0] as number] });
    const both: Edge[] = [{ layers: 'all', from: [0, 1, 2], to: [prompt.length - 1, prompt.length] }];
    const { top } = await context.run({ prompt: longer, edges: both, topK: 1 });
    expect(top[0]?.token).toBe(cut?.tokens[1]);
  });
});

describe('pictures', () => {
  test('their rows are read and written at embed', async () => {
    const model = await load('llava', { vision: true });
    const context = await model.createContext({ ...exact, nCtx: 512 });
    const prompt = await model.prompt([{ tokens: [1, 7, 8] }, { image: picture('square-a.png') }, { tokens: [9, 10] }]);
    const image = prompt.segments.find((segment) => segment.kind === 'image') as {
      nRows: number;
      embeddings: Float32Array;
    };
    const { nEmbd } = model.info;
    const { states } = await context.run({ prompt, capture: { hook: 'embed' } });
    expect(states.data.slice(3 * nEmbd, (3 + image.nRows) * nEmbd)).toEqual(image.embeddings);
    // rows of one picture may see each other, whichever comes first
    expect((await context.run({ prompt, edges: [{ layers: 0, from: 5, to: 4 }] })).interventions).toHaveLength(1);
    const value = randomVector(nEmbd, 2);
    const add = (hook: HookName): Intervention => ({ hook, layers: 0, positions: [3, 4], op: 'add', value });
    const row = { prompt, logits: 'last' } as const;
    const [plain, embed, pre] = await context.pass([
      row,
      { ...row, interventions: [add('embed')] },
      { ...row, interventions: [add('resid_pre')] },
    ]);
    expect(distance(logitsOf(embed), logitsOf(pre))).toBeLessThan(1e-5);
    expect(distance(logitsOf(embed), logitsOf(plain))).toBeGreaterThan(1e-3);
    const after = await context.run(row);
    expect(distance(logitsOf(after), logitsOf(plain))).toBeLessThan(1e-5);
  });
});

describe('what is refused', () => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  beforeAll(async () => {
    model = await load('llama');
    context = await model.createContext(exact);
    prompt = await tokenPrompt(model, 9);
  });
  const zero = { layers: 0, positions: 3, op: 'zero' } as const;
  const mean = (n: number, number: number) => {
    const positions = Array.from({ length: n }, (_, i) => i);
    const states = { hook: 'resid_post', layers: [0], positions, data: new Float32Array(64 * n).fill(number) } as const;
    return { layers: 0, positions: 3, op: 'mean', of: [states] } as const;
  };

  test.each<[string, Partial<PassRow>, string, RegExp]>([
    ['no experts', { capture: { hook: 'router' } }, 'HOOK_UNSUPPORTED', /no experts/],
    ['a hook of another name', { capture: { hook: 'hook_z' as 'z' } }, 'HOOK_UNSUPPORTED', /Hooks: embed/],
    ['a head too many', { capture: { hook: 'z', heads: [0, 9] } }, 'HEAD_OUT_OF_RANGE', /heads 0 to 3/],
    ['a head twice', { capture: { hook: 'z', heads: [1, 1] } }, 'INVALID_ARGUMENT', /repeat/],
    ['heads of the stream', { capture: { heads: [0] } }, 'HOOK_UNSUPPORTED', /not made of heads/],
    [
      'another layer of one place',
      { capture: { hook: 'embed', layers: [1] } },
      'LAYER_OUT_OF_RANGE',
      /only at layer 0/,
    ],
    [
      'a wrong width',
      { interventions: [{ ...zero, hook: 'z', op: 'replace', value: new Float32Array(5) }] },
      'INTERVENTION_INVALID',
      /5 numbers/,
    ],
    [
      'a direction of no length',
      { interventions: [{ ...zero, op: 'project', value: new Float32Array(64) }] },
      'INTERVENTION_INVALID',
      /no direction/,
    ],
    ['a clamp without bounds', { interventions: [{ ...zero, op: 'clamp' }] }, 'INTERVENTION_INVALID', /min, max/],
    [
      'bounds that cross',
      { interventions: [{ ...zero, op: 'clamp', min: 1, max: 0 }] },
      'INTERVENTION_INVALID',
      /above max/,
    ],
    ['a field that is not read', { interventions: [{ ...zero, keep: true }] }, 'INTERVENTION_INVALID', /takes no keep/],
    ['a mean of nothing', { interventions: [{ ...zero, op: 'mean' }] }, 'INTERVENTION_INVALID', /states to average/],
    ['a mean of no positions', { interventions: [mean(0, 0)] }, 'INTERVENTION_INVALID', /states to average/],
    ['a mean of NaN', { interventions: [mean(2, Number.NaN)] }, 'INTERVENTION_INVALID', /NaN or infinity/],
    [
      'a mean beyond numbers',
      { interventions: [mean(1, Number.NEGATIVE_INFINITY)] },
      'INTERVENTION_INVALID',
      /infinity/,
    ],
    ['no layers', { interventions: [{ op: 'zero' }] }, 'INVALID_ARGUMENT', /Layers must be/],
    ['an edge of no layer', { edges: [{ layers: 7, from: [0] }] }, 'LAYER_OUT_OF_RANGE', /layers 0 to 2/],
    [
      'an edge that goes backwards',
      { edges: [{ layers: 'all', from: 'last', to: 0 }] },
      'INTERVENTION_INVALID',
      /swap/,
    ],
    ['edges that go backwards', { edges: [{ layers: 0, from: [7, 8], to: [3, 6] }] }, 'INTERVENTION_INVALID', /swap/],
    ['an edge of no head', { edges: [{ layers: 0, heads: [4], from: [0] }] }, 'HEAD_OUT_OF_RANGE', /heads 0 to 3/],
    [
      'nothing left to see',
      { edges: [{ layers: 1, heads: [2], from: 'all' }] },
      'INTERVENTION_INVALID',
      /head 2 of layer 1/,
    ],
  ])('%s', async (_, row, code, message) => {
    await expectError(() => context.pass([{ prompt, ...row }]), code as 'BUSY', message);
    expect((await context.run({ prompt, topK: 1 })).top).toHaveLength(1);
  });

  test('scores and heads alone with flash attention, and says what to do', async () => {
    const flash = await model.createContext({ nCtx: 256 });
    expect(flash.options.flashAttention).toBe('auto');
    for (const hook of ['pattern', 'attn_scores'] as const) {
      await expectError(() => flash.run({ prompt, capture: { hook } }), 'HOOK_UNSUPPORTED', /flashAttention: 'off'/);
    }
    const edge = { layers: 0, heads: [0], from: [0] };
    await expectError(() => flash.run({ prompt, edges: [edge] }), 'HOOK_UNSUPPORTED', /flashAttention: 'off'/);
    await expectError(
      () => flash.run({ prompt, edges: [{ layers: 0, from: 'all' }] }),
      'INTERVENTION_INVALID',
      /nothing/,
    );
    await flash.dispose();
  });

  test('a pass that goes on behind a kept one has the whole pattern', async () => {
    const longer = await model.prompt({ tokens: [...prompt.tokens, 20, 21] });
    await context.run({ prompt }, { keep: true });
    const { states } = await context.run({
      prompt: longer,
      capture: { hook: 'pattern', layers: [2], positions: [-1] },
    });
    const total = states.head(2, 0).reduce((a, b) => a + b, 0);
    expect(total).toBeCloseTo(1, 5);
  });
});

test('the points of a model are found once, and not after its end', async () => {
  const model = await load('llama');
  const points = await model.hooks();
  expect(points.map(({ hook }) => hook)).toContain('resid_mid');
  expect(await model.hooks()).toBe(points);
  await model.dispose();
  await expectError(() => model.hooks(), 'DISPOSED', /disposed/);
});
