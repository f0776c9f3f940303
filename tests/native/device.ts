// What any device must compute as the CPU does, on tiny models with random weights: for vulkan-child.ts and scripts/gpu-check.
import { join } from 'node:path';
import type { Intervention } from '../../src/hooks/types.js';
import { finalNorm } from '../../src/lens/final-norm.js';
import { logitLens } from '../../src/lens/logit-lens.js';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { type Bounds, measure, outOfBounds } from '../parity/compare.js';
import { FOLDER } from '../parity/families.js';

/** With the picture of their prompts. mantis-fuyu is computed in part in the eval callback, the pictures of idefics2 in a graph of our own. */
export const DEVICE_FAMILIES: Readonly<Record<string, string | undefined>> = {
  llama: undefined,
  'llava-siglip': 'square-a.png',
  'mantis-fuyu': 'tall.png',
  idefics2: 'grid-a.png',
};
/** GPUs multiply in 16 bits where they can, so not as near as two runs on one device. */
export const DEVICE_BOUNDS: Bounds = { cosine: 0.999, magnitude: 0.02, nmse: 5e-3 };
/** Two orders of the same arithmetic on one device. */
const SAME: Bounds = { cosine: 1 - 1e-5, magnitude: 0.01, nmse: 2e-5 };

/** Rows of numbers, and how wide they are. */
export interface Rows {
  data: Float32Array;
  width: number;
}
export interface Measured {
  states: Rows;
  logits: Rows;
  deltas: Rows;
  /** States of all layers after the final norm, and logits of the lens there: plain, patched and normed before. */
  normed: Rows;
  lenses: Rows;
  /** Last logits of a sweep over layers and lengths of the state, in one pass and in one for each. */
  sweep: Rows;
  naive: Rows;
  /** Some states at every point of one block. */
  points: Record<string, Rows>;
  /** Last logits with edges cut, by the mask of flash attention and by scores, and with none cut. */
  cut: Rows;
  scored: Rows;
  uncut: Rows;
  /** Last logits with a state patched onto itself, and without. */
  same: Rows;
  own: Rows;
  generated: number;
}

/**
 * Vulkan has a kernel of its own for each product with 2 to 8 columns, which a driver in software compiles for up to half a minute. So no
 * decode below has or leaves so few rows, but for the 6 of a picture in idefics2.
 */
const MANY = 10;
/** And one for a larger product of more than 32 columns, so that the lens reads these positions. */
const READ = Array.from({ length: MANY }, (_, i) => 4 * i);

const joined = (parts: readonly ArrayLike<number>[], width: number): Rows => ({
  data: Float32Array.from(parts.flatMap((part) => Array.from(part))),
  width,
});

export async function measureOn(device: string, name: string, image = DEVICE_FAMILIES[name]): Promise<Measured> {
  const mmproj = image && join(FOLDER, `${name}.mmproj.gguf`);
  await using model = await loadModel(join(FOLDER, `${name}.gguf`), { device, mmproj, threads: 1 });
  const context = await model.createContext({ nCtx: 256, nUbatch: 16 });
  const { nEmbd, nLayers, nVocab } = model.info;
  const tokens = Array.from({ length: 26 }, (_, i) => 20 + ((i * 13) % 250));
  const picture = image && { image: join(FOLDER, 'pictures', image) };
  const prompt = await model.prompt([{ tokens }, ...(picture ? [picture] : []), { tokens: tokens.slice(0, 15) }]);
  const value = Float32Array.from({ length: nEmbd }, (_, i) => Math.sin(1 + 3 * i));
  const patch = (layers: number, positions: Intervention['positions'], times = 1): Intervention => ({
    layers,
    positions,
    op: 'replace',
    value: value.map((x) => x * times),
  });
  const last = { prompt, logits: 'last' } as const;
  const everything = { prompt, capture: 'all', logits: 'all' } as const;
  const plain = await context.run(everything);
  const interventions = [patch(1, [5, -1]), patch(2, -2)];
  const patched = await context.run({ ...everything, interventions });
  const sweep = Array.from({ length: MANY }, (_, i) => ({
    ...last,
    interventions: [patch(i % nLayers, 'last', 1 + Math.floor(i / nLayers))],
  }));
  const shared = await context.pass(sweep);
  const naive = [];
  for (const row of sweep) naive.push(await context.run(row));
  const own = await context.run({ ...last, capture: { layers: [1], positions: [7] } });
  const identity = [{ ...patch(1, 7), value: own.states.data }];
  const same = await context.run({ ...last, capture: { layers: [1], positions: [7] }, interventions: identity });
  const [generation] = await context.generate([{ prompt, interventions: [patch(1, 'last')] }], { maxTokens: 3 });
  const whole = { tokens: Array.from({ length: nVocab }, (_, token) => token) };
  const at = { prompt, capture: { layers: 'all', positions: READ }, logits: 'all' } as const;
  const read = await context.run(at);
  const normed = await finalNorm(context, read);
  const lenses = [
    await logitLens(context, read, whole),
    await logitLens(context, await context.run({ ...at, interventions }), whole), // as many rows: the same graph again
    await logitLens(context, normed, { ...whole, normalise: false }),
  ];
  const logits = (results: readonly { logits?: { data: Float32Array } }[]) =>
    joined(
      results.map((result) => result.logits?.data ?? []),
      nVocab,
    );
  return {
    states: joined([plain.states.data, patched.states.data], nEmbd),
    logits: logits([plain, patched]),
    deltas: joined([patched.interventions.map(({ delta }) => delta)], 1),
    normed: joined([normed.data], nEmbd),
    lenses: joined(
      lenses.map(({ cells }) => cells.flat().flatMap((cell) => cell.tokens.map(({ logit }) => logit))),
      nVocab,
    ),
    sweep: logits(shared),
    naive: logits(naive),
    same: logits([same]),
    own: logits([own]),
    generated: generation?.tokens.length ?? 0,
    ...(await measurePoints(model, prompt)),
  };
}

/** Every point of one block, logits when two edges are cut by the mask, and by scores. */
async function measurePoints(
  model: Model,
  prompt: Prompt,
): Promise<Pick<Measured, 'points' | 'cut' | 'scored' | 'uncut'>> {
  const off = await model.createContext({ nCtx: 256, nUbatch: 64, flashAttention: 'off' });
  const on = await model.createContext({ nCtx: 256, nUbatch: 64, flashAttention: 'on' });
  const hooks = off.hooks.filter(({ layers }) => layers.length > 0);
  const captures = hooks.map(({ hook, layers }) => ({ hook, layers: [layers.at(-1) as number], positions: READ }));
  const { captured } = await off.run({ prompt, captures, logits: 'all' });
  const finite = (data: Float32Array) => data.map((x) => (Number.isFinite(x) ? x : 0));
  const points = captured.map(({ hook, data }) => [hook, { data: finite(data), width: data.length / READ.length }]);
  const edges = [{ layers: 'all', from: [0, 3], to: 'last' }] as const;
  const logits = async (context: Context, cut: boolean): Promise<Rows> => {
    const result = await context.run({ prompt, logits: 'last', ...(cut && { edges }) });
    return { data: result.logits.data, width: model.info.nVocab };
  };
  return {
    points: Object.fromEntries(points),
    cut: await logits(on, true),
    scored: await logits(off, true),
    uncut: await logits(on, false),
  };
}

/** What is wrong with what a device computed, by check; empty lists when it is as the CPU's. */
export function differences(device: Measured, cpu: Measured): Record<string, string[]> {
  const near = (what: string, actual: Rows | undefined, expected: Rows, bounds = DEVICE_BOUNDS) => {
    if (actual?.data.length !== expected.data.length) {
      return [`${what}: ${actual?.data.length ?? 'no'} numbers, not ${expected.data.length}`];
    }
    const wrong = outOfBounds(measure(actual.data, expected.data, expected.width), bounds);
    return wrong.map((one) => `${what}: ${one}`);
  };
  const like = (...names: ('states' | 'logits' | 'normed' | 'lenses' | 'sweep' | 'cut' | 'scored')[]) =>
    names.flatMap((name) => near(name, device[name], cpu[name]));
  const points = Object.keys(cpu.points);
  // The first lens reads all layers of the plain prompt; its last layer's cells are logits of the pass.
  const third = device.lenses.data.length / 3;
  const { data, width } = device.logits;
  const ofLens = { data: device.lenses.data.subarray(third - READ.length * width, third), width };
  const ofPass = joined(
    READ.map((at) => data.subarray(at * width, (at + 1) * width)),
    width,
  );
  const changed = device.cut.data.some((x, i) => Math.abs(x - (device.uncut.data[i] as number)) > 1e-3);
  return {
    'states and logits, patched ones too, equal those of the CPU': [
      ...like('states', 'logits', 'sweep'),
      ...Array.from(device.deltas.data, (delta, i) => delta / (cpu.deltas.data[i] as number))
        .filter((ratio) => !(Math.abs(ratio - 1) < 0.005))
        .map((ratio) => `the change by a patch: ${ratio} of that of the CPU`),
    ],
    'the sweep equals the naive one': [
      ...near('sweep', device.sweep, device.naive, SAME),
      ...(bestOf(device.sweep) === bestOf(device.naive) ? [] : ['the best tokens differ']),
      ...(device.generated > 0 ? [] : ['nothing was generated']),
    ],
    'a state patched onto itself changes no bit': Buffer.from(device.same.data.buffer).equals(
      Buffer.from(device.own.data.buffer),
    )
      ? []
      : ['the logits differ'],
    'the lens and the final norm equal those of the CPU': [
      ...like('normed', 'lenses'),
      ...near('the last layer', ofLens, ofPass),
    ],
    'every point equals that of the CPU': [
      ...(points.length > 12 ? [] : [`only ${points.length} points were read`]),
      ...points.flatMap((hook) => near(hook, device.points[hook], cpu.points[hook] as Rows)),
    ],
    'attention that is cut equals that of the CPU': [
      ...like('cut', 'scored'),
      ...near('by the mask and by scores', device.cut, device.scored),
      ...(changed ? [] : ['cutting changed nothing']),
    ],
  };
}

const bestOf = ({ data, width }: Rows): string => {
  const rows = Array.from({ length: data.length / width }, (_, i) => data.subarray(i * width, (i + 1) * width));
  return rows.map((row) => row.indexOf(Math.max(...row))).join();
};
