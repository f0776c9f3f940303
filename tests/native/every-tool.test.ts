// Every tool that takes a model apart: on one layer, two and eight, on quantised weights, on two pictures; and what it says of a model or
// a layer that it cannot work on.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { ablate } from '../../src/circuits/ablate.js';
import { attributeLogits } from '../../src/circuits/attribution.js';
import { functionVector, headEffects } from '../../src/circuits/function-vector.js';
import { logitDifference } from '../../src/circuits/measure.js';
import { patchHeads } from '../../src/circuits/patch-heads.js';
import { patchLayers } from '../../src/circuits/patch-layers.js';
import { captureCorpus } from '../../src/corpus/capture-corpus.js';
import { openCorpus } from '../../src/corpus/corpus.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import type { Context } from '../../src/model/context.js';
import type { Model } from '../../src/model/model.js';
import type { PromptInput } from '../../src/prompt/prompt.js';
import type { PositionSelection } from '../../src/prompt/types.js';
import { steeringVector } from '../../src/vectors/steering.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, logitsOf, openModel, picture, randomTokens } from './helpers.js';
import { writeTwins } from './quantised-model.js';

const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
const [right, wrong] = [7, 11];
const metric = logitDifference(right, wrong);

async function twin(which: 'quantised' | 'float', options: Parameters<typeof writeTwins>[3] = {}) {
  const name = `${which}-${readdirSync(folder).length}.gguf`;
  const paths = which === 'quantised' ? [at(name), at('twin.gguf')] : [at('twin.gguf'), at(name)];
  writeTwins('q8_0', ...(paths as [string, string]), options);
  return openModel(at(name));
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - (b[i] as number))), 0);

/** A model with prompts of one length; `seen` is what a knock-out hides. */
interface Case {
  readonly model: Model;
  readonly prompts: readonly [PromptInput, PromptInput, PromptInput];
  readonly seen: PositionSelection;
  /** How far sums of parts, or one state read in two batches, may be apart. */
  readonly rounding: number;
}

const ofTokens = (model: Model, rounding = 1e-3): Case => ({
  model,
  prompts: [1, 2, 3].map((seed) => ({ tokens: randomTokens(model, 6, seed) })) as unknown as Case['prompts'],
  seen: [1, 2],
  rounding,
});

async function ofPictures(name: string): Promise<Case> {
  const model = await load(name, { vision: true });
  const [a, b] = [{ image: picture('square-a.png') }, { image: picture('square-b.png') }];
  const prompts = [
    ['Q:', a, 'A:', b],
    ['Q:', b, 'A:', a],
    ['Q:', b, 'A:', b],
  ] as const;
  return { model, prompts, seen: { picture: 2 }, rounding: 1e-3 };
}

describe.each<[string, () => Promise<Case>]>([
  ['one layer', async () => ofTokens(await twin('float', { nLayers: 1 }))],
  ['two layers', async () => ofTokens(await twin('float', { nLayers: 2 }))],
  ['eight layers', async () => ofTokens(await twin('float', { nLayers: 8 }))],
  ['quantised weights', async () => ofTokens(await twin('quantised'), 0.1)],
  ['two pictures', () => ofPictures('llava')],
  ['two pictures in M-RoPE', () => ofPictures('qwen2-vl')],
])('%s', (name, make) => {
  let opened: Promise<Case & { context: Context }> | undefined;
  const ready = () => {
    opened ??= make().then(async (found) => ({
      ...found,
      context: await found.model.createContext({ nCtx: 1024, kvType: 'f32', flashAttention: 'off' }),
    }));
    return opened;
  };

  test('patching maps end at the clean prompt, and begin at the corrupt one', async () => {
    const { model, context, prompts, rounding } = await ready();
    const [from, into] = prompts;
    const map = await patchLayers(context, { from, into, metric, topK: 2 });
    expect(map.layers).toHaveLength(model.info.nLayers);
    const last = map.positions.at(-1) as number;
    expect(Math.abs(map.at(model.info.nLayers - 1, last) - map.clean)).toBeLessThan(rounding);
    expect(Math.abs(map.clean - map.corrupt)).toBeGreaterThan(2 * rounding);
    expect(map.tops?.patched).toHaveLength(map.values.length);
    const heads = await patchHeads(context, { from: into, into, metric });
    expect(Math.abs(heads.corrupt - map.corrupt)).toBeLessThan(rounding);
    for (const value of heads.map.values) expect(Math.abs(value - map.corrupt)).toBeLessThan(rounding);
  });

  test.each(['layer', 'head', 'position'] as const)('attribution by %s sums to the logit difference', async (by) => {
    const { context, prompts, rounding } = await ready();
    const { difference, parts } = await attributeLogits(context, prompts[0], { right, wrong, by });
    expect(Math.abs(parts.reduce((sum, { value }) => sum + value, 0) - difference)).toBeLessThan(rounding);
  });

  test('ablation takes out each part', async () => {
    const { model, context, prompts } = await ready();
    const items = prompts.map((query) => ({ query, metric }));
    for (const what of ['attn_out', 'mlp_out', 'block', 'z'] as const) {
      const { plain, without } = await ablate(context, items, what);
      expect(new Set(without.map(({ layer }) => layer)).size).toBe(model.info.nLayers);
      for (const { value } of without) expect(Math.abs(value - plain)).toBeGreaterThan(0);
    }
  });

  test('head effects make a vector, which is added', async () => {
    const { model, context, prompts } = await ready();
    const effects = await headEffects(context, { prompts, corrupt: [{ prompt: prompts[1], answer: right }] });
    const vector = await functionVector(context, effects, 2);
    const [prompt] = prompts;
    const layer = model.info.nLayers - 1;
    const steered = await context.run({
      prompt,
      interventions: [vector.at(layer)],
      capture: { layers: [layer], positions: 'last' },
    });
    const plain = await context.run({ prompt, capture: { layers: [layer], positions: 'last' } });
    const moved = steered.states.data.map((x, i) => x - (plain.states.data[i] as number));
    expect(distance(moved, vector.state(layer))).toBeLessThan(1e-3);
  });

  test('a steering vector is the difference of states; a corpus and the lens read them', async () => {
    const { model, context, prompts, rounding } = await ready();
    const [positive, negative] = prompts;
    const vector = await steeringVector(context, { positive: [positive], negative: [negative] });
    const out = at(`corpus ${name}`);
    await captureCorpus(
      context,
      [positive, negative].map((prompt) => ({ prompt })),
      out,
    );
    for (let layer = 0; layer < model.info.nLayers; layer++) {
      const states: Float32Array[] = [];
      for await (const { rows } of (await openCorpus(out)).rows(layer)) states.push(...rows);
      const [a, b] = states as [Float32Array, Float32Array];
      expect(
        distance(
          vector.state(layer),
          a.map((x, i) => x - (b[i] as number)),
        ),
      ).toBeLessThan(rounding);
    }
    const { states, logits } = await context.run({ prompt: positive, capture: { positions: 'last' }, logits: 'last' });
    const lens = await logitLens(context, states, { topK: 1 });
    const best = logits.data.indexOf(Math.max(...logits.data));
    expect(lens.cells.at(-1)?.[0]?.top[0]?.token).toBe(best);
  });

  test('attention is knocked out', async () => {
    const { context, prompts, seen } = await ready();
    const [prompt] = prompts;
    const plain = await context.run({ prompt, logits: 'last' });
    const edges = [{ layers: 'all', from: seen, to: 'last' }] as const;
    const cut = await context.run({ prompt, edges, logits: 'last' });
    expect(cut.interventions.every(({ delta }) => delta > 0)).toBe(true);
    expect(distance(logitsOf(cut), logitsOf(plain))).toBeGreaterThan(1e-3);
  });
});

type Tool = (context: Context, prompt: PromptInput, layers?: readonly number[]) => Promise<unknown>;
const TOOLS: [string, Tool][] = [
  [
    'patchLayers',
    (context, prompt, layers) =>
      patchLayers(context, { from: prompt, into: prompt, metric, ...(layers && { layers }) }),
  ],
  [
    'patchHeads',
    (context, prompt, layers) => patchHeads(context, { from: prompt, into: prompt, metric, ...(layers && { layers }) }),
  ],
  [
    'ablate',
    (context, prompt, layers) =>
      ablate(context, [{ query: prompt, metric }], 'attn_out', { ...(layers && { layers }) }),
  ],
  [
    'ablate MLPs',
    (context, prompt, layers) => ablate(context, [{ query: prompt, metric }], 'mlp_out', { ...(layers && { layers }) }),
  ],
  [
    'ablate heads',
    (context, prompt, layers) => ablate(context, [{ query: prompt, metric }], 'z', { ...(layers && { layers }) }),
  ],
  [
    'steeringVector',
    (context, prompt, layers) =>
      steeringVector(context, { positive: [prompt], negative: [{ tokens: [3] }], ...(layers && { layers }) }),
  ],
  [
    'captureCorpus',
    (context, prompt, layers) => captureCorpus(context, [{ prompt }], at('refused'), { ...(layers && { layers }) }),
  ],
  [
    'an edge',
    (context, prompt, layers = [0]) => context.run({ prompt, edges: [{ layers, from: [0] }], logits: 'last' }),
  ],
];
const WITHOUT_LAYERS: [string, Tool][] = [
  ['attributeLogits', (context, prompt) => attributeLogits(context, prompt, { right, wrong })],
  [
    'headEffects',
    (context, prompt) => headEffects(context, { prompts: [prompt], corrupt: [{ prompt, answer: right }] }),
  ],
];

test.each([...TOOLS, ...WITHOUT_LAYERS])('%s says that the points of a model cannot be found', async (_, tool) => {
  const model = await twin('float', { more: [['llama.attention.shared_kv_layers', 'uint32', 1]] });
  await using context = await model.createContext({ nCtx: 64 });
  await expectError(() => tool(context, { tokens: [3, 4, 5] }), 'HOOK_UNSUPPORTED', /keys and values of earlier/);
});

test.each(TOOLS)('%s says that there is no such layer', async (_, tool) => {
  const model = await load('llama');
  await using context = await model.createContext({ nCtx: 64 });
  await expectError(() => tool(context, { tokens: [3, 4, 5] }, [7]), 'LAYER_OUT_OF_RANGE', /layers 0 to 2/);
  expect(readdirSync(folder)).not.toContain('refused');
});
