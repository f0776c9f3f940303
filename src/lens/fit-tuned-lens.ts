import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { XpatchError } from '../errors.js';
import type { Context, HiddenStates, OnProgress, Prompt } from '../model/index.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { Random } from '../random.js';
import { logitLens } from './logit-lens.js';
import { Pace } from './pace.js';
import { RidgeSums } from './ridge.js';
import { type LensStrength, type Translator, TunedLens, translate } from './tuned-lens.js';

export interface FitOptions {
  /** Largest number of positions to fit on, drawn evenly from the prompts. Defaults to 8192. */
  positions?: number;
  /** Draws the validation prompts and the positions. Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  /** Steps of all; each layer is read and then solved. */
  onProgress?: OnProgress;
}

/** Ridge strengths that are tried beside `plain` and `bias`; see `RidgeSums.solve` for their unit. */
const STRENGTHS = [1, 0.1, 0.01, 0.001];
/** One prompt in so many chooses the strengths. */
const VALIDATION_SHARE = 5;
/** Each of these positions is decoded with every strength, in every layer. */
const VALIDATION_POSITIONS = 160;
/** Sums of as many layers at once as fit in this, bytes; the prompts are decoded once for each group of layers. */
const SUMS_BYTES = 256 * 2 ** 20;
/** States of one pass, bytes. */
const PASS_BYTES = 32 * 2 ** 20;

interface Sample {
  prompt: Prompt;
  positions: number[];
}

/**
 * Fits a tuned lens without back-propagation: ridge regression of h_L - h_l on h_l for each layer l, so that an infinite
 * ridge is the plain lens plus a constant.
 *
 * - The strength of each layer is the one whose lens has the least mean KL divergence from the model's own distribution on
 *   validation prompts that the maps are not fitted to; the plain lens is among the candidates.
 * - Samples are weighted by 1 / mean square of h_L, since the head normalises it: an error counts for what it is to the head.
 * - The first position of a prompt is left out: its state is the same in every text, and so large in many models that it
 *   would rule the fit (attention sinks: Xiao et al. 2023, arXiv 2309.17453). The lens reads it like any other.
 *
 * Memory: 16 n_embd^2 bytes a layer, at most 256 MiB or one layer. Time: positions x n_embd^2 a layer for the sums, and
 * four solutions of 4/3 n_embd^3.
 *
 * @param prompts at least 5 different ones, with more positions than n_embd if the maps are to be of use
 * @throws {XpatchError} INVALID_ARGUMENT, NOT_FINITE, and as `Context.pass`.
 */
export async function fitTunedLens(
  context: Context,
  prompts: readonly Prompt[],
  options: FitOptions = {},
): Promise<TunedLens> {
  const { positions = 8192, seed = 1, signal, onProgress } = options;
  const { identity, info } = context.model;
  if (info.nLayers < 2) throw new XpatchError('INVALID_ARGUMENT', 'A model of one layer has nothing to tune.');
  const distinct = [...new Map(prompts.filter((p) => p.length > 1).map((prompt) => [keyOf(prompt), prompt]))];
  if (distinct.length < VALIDATION_SHARE) {
    const problem = `${distinct.length} different prompts of more than one position are too few to fit a lens`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Give at least ${VALIDATION_SHARE}.`);
  }
  const random = new Random(seed, 'tuned-lens');
  const shuffled = random.sample(distinct.map(([, prompt]) => prompt));
  const nValidation = Math.floor(shuffled.length / VALIDATION_SHARE);
  const validation = drawPositions(shuffled.slice(0, nValidation), VALIDATION_POSITIONS, random);
  const training = drawPositions(shuffled.slice(nValidation), positions, random);

  const pace = new Pace(signal);
  const layers = Array.from({ length: info.nLayers - 1 }, (_, i) => i);
  const perGroup = Math.max(1, Math.floor(SUMS_BYTES / (16 * info.nEmbd ** 2)));
  const translators: Translator[] = [];
  const total = 2 * layers.length;
  for (let first = 0; first < layers.length; first += perGroup) {
    const group = layers.slice(first, first + perGroup);
    const report = (done: number) => onProgress?.({ done: 2 * first + done, total });
    const sums = group.map(() => new RidgeSums(info.nEmbd));
    await readStates(
      context,
      group,
      training,
      { signal, onProgress: (share) => report(share * group.length) },
      (rows) => addRows(rows, sums, pace),
    );
    const held: Float32Array[][] = [...group, 0].map(() => []);
    await readStates(context, group, validation, { signal }, async (rows) => {
      for (const [l, states] of rows.entries()) held[l]?.push(...states);
    });
    const final = held[group.length] as Float32Array[];
    for (const i of group.keys()) {
      translators.push(await choose(context, sums[i] as RidgeSums, held[i] as Float32Array[], final, pace, signal));
      report(group.length + i + 1);
    }
  }
  const { version } = JSON.parse(await readFile(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };
  const count = (samples: Sample[]) => samples.reduce((n, sample) => n + sample.positions.length, 0);
  const fit = {
    prompts: training.length,
    positions: count(training),
    validationPrompts: validation.length,
    validationPositions: count(validation),
    seed,
    promptsHash: createHash('sha256')
      .update(
        distinct
          .map(([key]) => key)
          .sort()
          .join(''),
      )
      .digest('hex'),
    xpatch: version,
  };
  return new TunedLens({ model: identity, hook: 'resid_post', layers, fit }, translators);
}

/** SHA-256 of a prompt as the model sees it. */
function keyOf(prompt: Prompt): string {
  const segments = prompt.segments.map((s) => (s.kind === 'tokens' ? [...s.tokens] : s.key));
  return createHash('sha256').update(JSON.stringify(segments)).digest('hex');
}

/** About `count` positions, as many from each prompt, the first one never. */
function drawPositions(prompts: readonly Prompt[], count: number, random: Random): Sample[] {
  const each = Math.max(1, Math.ceil(count / prompts.length));
  return prompts.map((prompt) => {
    const all = Array.from({ length: prompt.length - 1 }, (_, i) => i + 1);
    return { prompt, positions: random.sample(all, Math.min(each, all.length)) };
  });
}

/** Captures the group's layers and the last one, some prompts at a time; `take` gets the rows of each of these layers. */
async function readStates(
  context: Context,
  group: readonly number[],
  samples: readonly Sample[],
  { signal, onProgress }: { signal?: AbortSignal; onProgress?: (share: number) => void },
  take: (rows: Float32Array[][]) => Promise<void>,
): Promise<void> {
  const { nEmbd, nLayers } = context.model.info;
  const layers = [...group, nLayers - 1];
  const bytes = ({ positions }: Sample) => 4 * nEmbd * layers.length * positions.length;
  for (let first = 0; first < samples.length; ) {
    let size = bytes(samples[first] as Sample);
    let end = first + 1;
    while (end < samples.length && size + bytes(samples[end] as Sample) <= PASS_BYTES) {
      size += bytes(samples[end++] as Sample);
    }
    const rows = samples.slice(first, end).map(({ prompt, positions }) => ({ prompt, capture: { layers, positions } }));
    const results = await context.pass(rows, { signal });
    const states = results.map((result) => result.states as HiddenStates);
    await take(layers.map((_, l) => states.flatMap((s) => s.positions.map((_, p) => rowOf(s, l, p)))));
    first = end;
    onProgress?.(first / samples.length);
  }
}

function rowOf({ data, shape: [, nPositions, width] }: HiddenStates, l: number, p: number): Float32Array {
  const at = (l * nPositions + p) * width;
  return data.subarray(at, at + width);
}

/** Adds samples of all layers of a group; the last entry of `rows` is the last layer. */
async function addRows(rows: Float32Array[][], sums: RidgeSums[], pace: Pace): Promise<void> {
  const final = rows.at(-1) as Float32Array[];
  const difference = new Float64Array(sums[0]?.width ?? 0);
  for (const [i, sum] of sums.entries()) {
    for (const [p, target] of final.entries()) {
      const state = rows[i]?.[p] as Float32Array;
      let square = 0;
      for (let j = 0; j < target.length; j++) {
        square += (target[j] as number) ** 2;
        difference[j] = (target[j] as number) - (state[j] as number);
      }
      // A state of zeros says nothing.
      if (square !== 0) await sum.add(state, difference, target.length / square, pace);
    }
  }
}

/** The candidate with the least mean KL on the validation rows; of equals the first, which changes less. */
async function choose(
  context: Context,
  sums: RidgeSums,
  states: readonly Float32Array[],
  final: readonly Float32Array[],
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<Translator> {
  const width = sums.width;
  let best: { translator: Translator; kl: number } | undefined;
  for (const strength of ['plain', 'bias', ...STRENGTHS] as LensStrength[]) {
    const translator: Translator =
      strength === 'plain'
        ? { strength }
        : strength === 'bias'
          ? { strength, bias: (await sums.solve(Number.POSITIVE_INFINITY, pace)).bias }
          : { strength, ...(await sums.solve(strength, pace)) };
    const data = new Float32Array(2 * states.length * width);
    for (const [p, state] of states.entries()) {
      translate(state, translator, data.subarray(p * width, (p + 1) * width));
      data.set(final[p] as Float32Array, (states.length + p) * width);
      if (pace.due()) await pace.rest();
    }
    const lens = await logitLens(
      context,
      {
        hook: 'resid_post',
        data,
        shape: [2, states.length, width],
        layers: [0, 1],
        positions: [...states.keys()],
        tokens: states.map(() => -1),
      },
      { topK: 0, signal },
    );
    const kl = (lens.cells[0] ?? []).reduce((sum, cell) => sum + cell.kl, 0) / states.length;
    if (process.env.B_DEBUG) console.error(strength, kl.toFixed(4));
    if (!best || kl < best.kl) best = { translator, kl };
  }
  return (best as NonNullable<typeof best>).translator;
}
