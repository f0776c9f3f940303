// Which parts of a model carry an answer: each tool against the weights of the file, or against the same edits one by one.
import { beforeAll, describe, expect, test } from '@jest/globals';
import { ablate } from '../../src/circuits/ablate.js';
import { attributeLogits } from '../../src/circuits/attribution.js';
import { functionVector, headEffects } from '../../src/circuits/function-vector.js';
import { HeadMap, headsOf, projectHeads } from '../../src/circuits/heads.js';
import { divergenceFrom, logitDifference, tokenProbability } from '../../src/circuits/measure.js';
import { patchHeads } from '../../src/circuits/patch-heads.js';
import { patchLayers } from '../../src/circuits/patch-layers.js';
import type { Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { Model } from '../../src/model/model.js';
import { expectError } from '../unit/helpers.js';
import { readTensor } from './gguf-contents.js';
import { fixture, load, logitsOf, randomTokens } from './helpers.js';

const [right, wrong] = [7, 11];
let model: Model;
let context: Context;
const tokens = (n: number, seed: number) => ({ tokens: randomTokens(model, n, seed) });

async function open(name: string): Promise<void> {
  model = await load(name);
  context = await model.createContext({ nCtx: 256, kvType: 'f32', flashAttention: 'off' });
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a, (x, i) => x * (b[i] as number)).reduce((s, x) => s + x, 0);

describe.each(['llama', 'qwen3', 'phi3', 'gpt-neox', 'persimmon', 'qwen2'])('%s', (name) => {
  beforeAll(() => open(name));

  test.each(['layer', 'head', 'position'] as const)('parts by %s sum to the logit difference', async (by) => {
    const query = tokens(7, 1);
    const { difference, parts } = await attributeLogits(context, query, { right, wrong, by });
    const logits = logitsOf(await context.run({ prompt: query, logits: 'last' }));
    expect(difference).toBeCloseTo((logits[right] as number) - (logits[wrong] as number), 4);
    expect(parts.reduce((sum, { value }) => sum + value, 0)).toBeCloseTo(difference, 3);
    const expected = { layer: model.info.nLayers, head: headsOf(context).length, position: 7 * model.info.nLayers };
    const pieces = parts.filter(({ part }) => part === (by === 'head' ? 'head' : 'attn_out'));
    expect(pieces).toHaveLength(expected[by]);
    if (by === 'layer') return;
    // What they say of a layer is what its attention says, but for a bias of the projection.
    const whole = await attributeLogits(context, query, { right, wrong });
    for (const { layer, value } of whole.parts.filter(({ part }) => part === 'attn_out')) {
      const own = parts.filter((one) => one.layer === layer && one.part !== 'mlp_out');
      expect(own.reduce((sum, one) => sum + one.value, 0)).toBeCloseTo(value, 4);
    }
  });
});

describe('llama, by its weights', () => {
  beforeAll(() => open('llama'));
  const weights = (name: string) => readTensor(fixture('llama.gguf'), name);

  test('a part of an attribution is its product with the unembedding, behind the norm with its scale frozen', async () => {
    const query = tokens(7, 1);
    const { parts } = await attributeLogits(context, query, { right, wrong });
    const width = model.info.nEmbd;
    const gain = weights('output_norm.weight');
    const head = weights('output.weight');
    const direction = Array.from(
      gain,
      (g, d) => g * ((head[right * width + d] as number) - (head[wrong * width + d] as number)),
    );
    const last = model.info.nLayers - 1;
    const { captured } = await context.run({
      prompt: query,
      captures: [
        { hook: 'resid_post', layers: [last], positions: 'last' },
        { hook: 'mlp_out', positions: 'last' },
        { hook: 'attn_out', positions: 'last' },
      ],
    });
    const [state, mlp, attention] = captured ?? [];
    const x = state?.at(last) as Float32Array;
    const scale = Math.sqrt(dot(x, x) / width + 1e-5);
    for (let layer = 0; layer <= last; layer++) {
      for (const [part, states] of [
        ['mlp_out', mlp],
        ['attn_out', attention],
      ] as const) {
        const found = parts.find((one) => one.part === part && one.layer === layer);
        expect(found?.value).toBeCloseTo(dot(states?.at(layer) as Float32Array, direction) / scale, 4);
      }
    }
  });

  test('what attention reads at a position is the values there by its weights, through the output projection', async () => {
    const query = tokens(6, 3);
    const hooks = ['pattern', 'v', 'resid_post'] as const;
    const captures = hooks.map((hook) => ({ hook, positions: 'all' as const }));
    const { captured = [] } = await context.run({ prompt: query, captures });
    const [pattern, v, stream] = captured;
    const width = model.info.nEmbd;
    const [gain, unembedding] = [weights('output_norm.weight'), weights('output.weight')];
    const x = stream?.at(model.info.nLayers - 1, 5) as Float32Array;
    const scale = Math.sqrt(dot(x, x) / width + 1e-5);
    const { parts } = await attributeLogits(context, query, { right, wrong, by: 'position' });
    for (const [layer, position] of [
      [0, 0],
      [1, 3],
      [0, 5],
    ] as const) {
      const matrix = weights(`blk.${layer}.attn_output.weight`);
      const heads = pattern?.heads?.length as number;
      const shared = heads / (v?.heads?.length as number);
      const z = Array.from({ length: heads }, (_, head) => {
        const weight = pattern?.head(layer, head, 5)[position] as number;
        return Array.from(v?.head(layer, Math.floor(head / shared), position) ?? [], (value) => weight * value);
      }).flat();
      const rows = Array.from({ length: width }, (_, d) => matrix.slice(d * z.length, (d + 1) * z.length));
      const value = rows.reduce((sum, row, d) => {
        const direction = (unembedding[right * width + d] as number) - (unembedding[wrong * width + d] as number);
        return sum + (dot(row, z) * (gain[d] as number) * direction) / scale;
      }, 0);
      const found = parts.find((one) => one.layer === layer && one.position === position);
      expect(found?.value).toBeCloseTo(value, 4);
    }
  });

  test('heads go through the rows of the output projection that are theirs', async () => {
    const { states: z } = await context.run({ prompt: tokens(5, 2), capture: { hook: 'z', positions: 'last' } });
    const [one] = await projectHeads(context, z, [({ head }) => head === 1]);
    const width = model.info.nEmbd;
    for (const [l, layer] of z.layers.entries()) {
      const matrix = weights(`blk.${layer}.attn_output.weight`);
      const all = z.at(layer);
      const part = z.head(layer, 1);
      for (let d = 0; d < width; d++) {
        const row = matrix.subarray(d * all.length + part.length, d * all.length + 2 * part.length);
        expect(one?.[l]?.[d]).toBeCloseTo(dot(part, row), 4);
      }
    }
  });

  test('effects of heads are those of writing each mean by hand; a function vector is what the best ones add', async () => {
    const prompts = [1, 2, 3].map((seed) => tokens(6, seed));
    const corrupt = [4, 5].map((seed) => ({ prompt: tokens(6, seed), answer: right }));
    const effects = await headEffects(context, { prompts, corrupt });
    const captures = await context.pass(
      prompts.map((prompt) => ({ prompt, capture: { hook: 'z', positions: 'last' } as const })),
    );
    const probability = async (prompt: object, interventions: Intervention[]) =>
      tokenProbability(right).value(logitsOf(await context.run({ prompt, interventions, logits: 'last' } as never)), [
        right,
      ]);
    for (const { layer, head } of [headsOf(context)[0], headsOf(context).at(-1)] as { layer: number; head: number }[]) {
      const value = captures[0]?.states
        .head(layer, head)
        .map((_, d) =>
          captures.reduce((sum, { states }) => sum + (states.head(layer, head)[d] as number) / captures.length, 0),
        );
      let effect = 0;
      for (const { prompt } of corrupt) {
        const edit = { hook: 'z', layers: layer, heads: [head], op: 'replace', value } as Intervention;
        effect += ((await probability(prompt, [edit])) - (await probability(prompt, []))) / corrupt.length;
      }
      expect(effects.effects.at(layer, head)).toBeCloseTo(effect, 6);
    }
    const [best] = effects.effects.best(1);
    const vector = await functionVector(context, effects, 1);
    const matrix = weights(`blk.${best?.layer}.attn_output.weight`);
    const whole = effects.mean.at(best?.layer as number);
    const part = effects.mean.head(best?.layer as number, best?.head as number);
    const state = vector.state(1);
    for (const d of state.keys()) {
      const from = d * whole.length + part.length * (best?.head as number);
      expect(state[d]).toBeCloseTo(dot(part, matrix.subarray(from, from + part.length)), 4);
    }
    expect(vector.at(1)).toMatchObject({ op: 'add' });
    expect(vector.info.origin).toMatchObject({ op: 'function', heads: [{ layer: best?.layer, head: best?.head }] });
  });

  test('patched heads are those of one edit at a time; all positions of one prompt into itself change nothing', async () => {
    const [from, into] = [tokens(6, 1), tokens(6, 2)];
    const metric = logitDifference(right, wrong);
    const { map, clean, corrupt } = await patchHeads(context, { from, into, metric });
    const itself = await patchHeads(context, { from: into, into, metric });
    expect(itself.clean).toBeCloseTo(corrupt, 4);
    for (const value of itself.map.values) expect(value).toBeCloseTo(corrupt, 4);
    expect(clean).not.toBeCloseTo(corrupt, 1);
    const { states } = await context.run({ prompt: from, capture: { hook: 'z', layers: [1] } });
    const interventions = states.positions.map(
      (position) =>
        ({
          hook: 'z',
          layers: 1,
          heads: [2],
          positions: position,
          op: 'replace',
          value: states.head(1, 2, position),
        }) as const,
    );
    const logits = logitsOf(await context.run({ prompt: into, interventions, logits: 'last' }));
    expect(map.at(1, 2)).toBeCloseTo(metric.value(logits, [right, wrong]), 4);
  });

  test('ablation is the edit at all positions, averaged over items', async () => {
    const items = [1, 2].map((seed) => ({ query: tokens(5, seed), metric: logitDifference(right, wrong) }));
    const { plain, without } = await ablate(context, items, 'z');
    const mlps = await ablate(context, items, 'mlp_out');
    const difference = async (edit?: Intervention) => {
      let sum = 0;
      for (const { query, metric } of items) {
        const row = { prompt: query, interventions: edit ? [edit] : [], logits: 'last' } as const;
        sum += metric.value(logitsOf(await context.run(row)), [right, wrong]) / items.length;
      }
      return sum;
    };
    expect(plain).toBeCloseTo(await difference(), 4);
    const head = without.find((one) => one.layer === 1 && one.head === 1);
    expect(head?.value).toBeCloseTo(
      await difference({ hook: 'z', layers: 1, heads: [1], positions: 'all', op: 'zero' }),
      4,
    );
    const mlp = mlps.without.find(({ layer }) => layer === 0);
    expect(mlp?.value).toBeCloseTo(await difference({ hook: 'mlp_out', layers: 0, positions: 'all', op: 'zero' }), 4);
    const blocks = await ablate(context, items, 'block');
    const skipped = async (layer: number) => {
      let sum = 0;
      for (const { query, metric } of items) {
        // Without what block 1 adds the stream goes on as it came.
        const { states } = await context.run({
          prompt: query,
          capture: { hook: 'resid_pre', layers: [layer], positions: 'all' },
        });
        const interventions = [0, 1, 2, 3, 4].map(
          (position) =>
            ({ layers: layer, positions: position, op: 'replace', value: states.at(layer, position) }) as const,
        );
        const logits = logitsOf(await context.run({ prompt: query, interventions, logits: 'last' }));
        sum += metric.value(logits, [right, wrong]) / items.length;
      }
      return sum;
    };
    expect(blocks.without.map(({ layer }) => layer)).toEqual(mlps.without.map(({ layer }) => layer));
    expect(blocks.without.find(({ layer }) => layer === 1)?.value).toBeCloseTo(await skipped(1), 4);
    const { captured } = await context.run({
      prompt: tokens(9, 3),
      captures: [{ hook: 'attn_out' }, { hook: 'mlp_out' }],
    });
    const mean = await ablate(context, items, 'block', { op: 'mean', of: captured });
    expect(mean.without.map(({ layer }) => layer)).toEqual(blocks.without.map(({ layer }) => layer));
    const half = () => ablate(context, items, 'block', { op: 'mean', of: captured?.slice(1) });
    await expectError(half, 'INTERVENTION_INVALID', /needs states/);
    const { states } = await context.run({ prompt: tokens(9, 3), capture: { hook: 'mlp_out' } });
    const means = await ablate(context, items, 'mlp_out', { op: 'mean', of: [states] });
    expect(means.without.map(({ layer }) => layer)).toEqual(states.layers);
    await expectError(() => ablate(context, items, 'z', { op: 'mean' }), 'INVALID_ARGUMENT', /belong to the op mean/);
    await expectError(() => ablate(context, [], 'z'), 'INVALID_ARGUMENT', /no items/);
  });

  test('with noise on the embeddings a map is causal tracing: the last layer at the last position brings all back', async () => {
    const prompt = tokens(6, 1);
    const noise = { hook: 'embed', positions: [1, 2], op: 'noise', factor: 3, seed: 2 } as const;
    const metric = tokenProbability(right);
    const map = await patchLayers(context, { from: prompt, into: { prompt, interventions: [noise] }, metric });
    expect(map.clean).not.toBeCloseTo(map.corrupt, 3);
    expect(map.at(model.info.nLayers - 1, 5)).toBeCloseTo(map.clean, 5);
    expect(map.at(0, 0)).toBeCloseTo(map.corrupt, 6); // nothing was noisy there
  });

  test('a divergence is none for the same logits, and more for others', async () => {
    const row = { prompt: tokens(5, 1), logits: 'last' } as const;
    const logits = logitsOf(await context.run(row));
    const metric = divergenceFrom(logits);
    expect(metric.value(logits, [])).toBeCloseTo(0, 6);
    expect(
      metric.value(
        logits.map((x) => x + 1),
        [],
      ),
    ).toBeCloseTo(0, 5);
    expect(
      metric.value(
        logits.map((x) => 2 * x),
        [],
      ),
    ).toBeGreaterThan(0.01);
    const other = { query: row, metric: divergenceFrom(logits.slice(1)) };
    await expectError(() => ablate(context, [other], 'z'), 'INVALID_ARGUMENT', /same model/);
  });

  test.each([undefined, Number.NaN, '3', null, Promise.resolve(1)])(
    'a metric that gives %p is refused',
    async (value) => {
      const metric = { track: [], value: () => value as unknown as number };
      const query = tokens(3, 1);
      for (const measure of [
        () => patchLayers(context, { from: query, into: query, metric, layers: [0], positions: 'last' }),
        () => patchHeads(context, { from: query, into: query, metric, layers: [0] }),
        () => ablate(context, [{ query, metric }], 'attn_out'),
      ])
        await expectError(measure, 'INVALID_ARGUMENT', /must be a number/);
    },
  );

  test('maps of heads answer for heads that they have, in whole numbers', async () => {
    expect(() => logitDifference(right, right)).toThrow(/are the same/);
    await expectError(
      () => attributeLogits(context, tokens(3, 1), { right, wrong: right }),
      'INVALID_ARGUMENT',
      /the same/,
    );
    const some = { from: tokens(3, 1), into: tokens(3, 2), metric: logitDifference(right, wrong) };
    const { map } = await patchHeads(context, { ...some, layers: [0] });
    const other = await patchHeads(context, { ...some, layers: [1] });
    for (const n of [-1, 1.5, Number.POSITIVE_INFINITY])
      await expectError(async () => map.best(n), 'INVALID_ARGUMENT', /whole number/);
    expect([0, 2, 99].map((n) => map.best(n).length)).toEqual([0, 2, map.heads.length]);
    await expectError(async () => HeadMap.mean([map, other.map]), 'INVALID_ARGUMENT', /different heads/);
  });
});

test('a model that caps its logits has no direct attribution', async () => {
  await open('gemma2');
  const attribute = () => attributeLogits(context, tokens(5, 1), { right, wrong });
  await expectError(attribute, 'LENS_UNSUPPORTED', /not linear/);
});
