import { createHash } from 'node:crypto';
import type { Context } from '../model/context.js';
import { HiddenStates } from '../model/hidden-states.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { RidgeSums } from '../stats/ridge.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { packageVersion } from '../util/package-root.js';
import { Random } from '../util/random.js';
import { logitLens } from './logit-lens.js';
import { TunedLens, translate } from './tuned-lens.js';
import type { Translator } from './tuned-lens-file.js';

/** How a tuned lens is fitted. */
export interface FitOptions {
  /** Largest number of positions to fit on, drawn evenly from the prompts. Defaults to 8192. */
  positions?: number;
  /** Prompts to choose the ridge strengths on. Defaults to a fifth of the prompts, drawn by seed. */
  validation?: readonly Prompt[];
  /** Draws the validation prompts and the positions. Defaults to 1. */
  seed?: number;
  /**
   * Memory for the sums of the regressions, bytes: where the layers do not fit in, the prompts are decoded again for each
   * group of layers that does. Defaults to 256 MiB.
   */
  memory?: number;
  signal?: AbortSignal;
  /** Steps of all; each layer is read and then solved. */
  onProgress?: OnProgress;
}

/** Ridge strengths to choose from; the last one is `bias`. */
const STRENGTHS = [1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, Number.POSITIVE_INFINITY];
/** Where the search begins; a layer begins where the one before ended. */
const FIRST_STRENGTH = 0.1;
/** One prompt in so many chooses the strengths. */
const VALIDATION_SHARE = 5;
/** Each of these positions is decoded with every strength, in every layer. */
const VALIDATION_POSITIONS = 320;
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
 * Memory: 16 n_embd^2 bytes a layer, as many layers at once as `memory` holds, at least one. Time: for each layer
 * 1.5 positions x n_embd^2 multiplications for the sums, and some four times 7/6 n_embd^3 for a solution and 320 rows
 * through the head.
 *
 * @param prompts different ones, at least 5, with several times as many positions as n_embd if the maps are to be of use
 * @throws {XpatchError} INVALID_ARGUMENT, NOT_FINITE, and as `Context.pass`.
 */
export async function fitTunedLens(
  context: Context,
  prompts: readonly Prompt[],
  options: FitOptions = {},
): Promise<TunedLens> {
  const { positions = 8192, seed = 1, memory = 256 * 2 ** 20, signal, onProgress } = options;
  const { identity, info } = context.model;
  if (!Number.isInteger(positions) || positions < 1 || !(memory >= 0)) {
    const given = `positions ${positions}, memory ${memory}`;
    throw new XpatchError(
      'INVALID_ARGUMENT',
      `A lens is fitted on at least 1 position with memory from 0, not ${given}.`,
    );
  }
  if (info.nLayers < 2) throw new XpatchError('INVALID_ARGUMENT', 'A model of one layer has nothing to tune.');
  const random = new Random(seed, 'tuned-lens');
  const divided = dividePrompts(prompts, options.validation, random);
  const validation = drawPositions(divided.validation, VALIDATION_POSITIONS, random);
  const training = drawPositions(divided.fit, positions, random);

  const pace = new Pace(signal);
  const layers = Array.from({ length: info.nLayers - 1 }, (_, i) => i);
  const perGroup = Math.max(1, Math.floor(memory / (16 * info.nEmbd ** 2)));
  const translators: Translator[] = [];
  const total = 2 * layers.length;
  let strength = FIRST_STRENGTH;
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
      for (const [l, states] of rows.entries()) for (const state of states) held[l]?.push(state);
    });
    const final = held[group.length] as Float32Array[];
    for (const [i, sum] of sums.entries()) {
      const chosen = await choose(context, sum, held[i] as Float32Array[], final, strength, pace, signal);
      translators.push(chosen.translator);
      strength = chosen.strength;
      report(group.length + i + 1);
    }
  }
  const count = (samples: Sample[]) => samples.reduce((n, sample) => n + sample.positions.length, 0);
  const fit = {
    prompts: training.length,
    positions: count(training),
    validationPrompts: validation.length,
    validationPositions: count(validation),
    seed,
    promptsHash: divided.hash,
    xpatch: packageVersion(),
  };
  return new TunedLens({ model: identity, hook: 'resid_post', layers, fit }, translators);
}

/** Different prompts to fit on and others to choose on, and a hash of all of them. */
function dividePrompts(prompts: readonly Prompt[], validation: readonly Prompt[] | undefined, random: Random) {
  const distinct = (some: readonly Prompt[]) =>
    new Map(some.filter(({ length }) => length > 1).map((prompt) => [keyOf(prompt), prompt]));
  const fit = distinct(prompts);
  const keys = [...fit.keys()];
  const drawn = random.sample(keys, Math.floor(keys.length / VALIDATION_SHARE));
  const held = validation ? distinct(validation) : new Map(drawn.map((key) => [key, fit.get(key) as Prompt]));
  // What the strengths are chosen on must not be fitted to.
  for (const key of held.keys()) fit.delete(key);
  if (fit.size < VALIDATION_SHARE - 1 || held.size === 0) {
    const problem = `${fit.size} different prompts of more than one position to fit on, and ${held.size} to validate on`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}, are too few for a lens. Give at least ${VALIDATION_SHARE}.`);
  }
  const all = [...fit.keys(), ...held.keys()].sort();
  const hash = createHash('sha256').update(all.join('')).digest('hex');
  return { fit: [...fit.values()], validation: [...held.values()], hash };
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
    await take(layers.map((_, l) => results.flatMap(({ states }) => states.positions.map((_, p) => states.row(l, p)))));
    first = end;
    onProgress?.(first / samples.length);
  }
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

/**
 * The candidate with the least mean KL on the validation rows, and the best strength: from `start` as far up or down as it
 * gets better.
 */
async function choose(
  context: Context,
  sums: RidgeSums,
  states: readonly Float32Array[],
  final: readonly Float32Array[],
  start: number,
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<{ translator: Translator; strength: number }> {
  const klOf = async (translator: Translator) => {
    const { width } = sums;
    const data = new Float32Array(2 * states.length * width);
    for (const [p, state] of states.entries()) {
      translate(state, translator, data.subarray(p * width, (p + 1) * width));
      data.set(final[p] as Float32Array, (states.length + p) * width);
      if (pace.due()) await pace.rest();
    }
    // Two "layers": the predictions, and what they are compared with.
    const places = { layers: [0, 1], positions: [...states.keys()], tokens: states.map(() => -1) };
    const pairs = new HiddenStates({ hook: 'resid_post', model: context.model.identity, ...places }, data);
    const { cells } = await logitLens(context, pairs, { topK: 0, signal });
    return (cells[0] ?? []).reduce((sum, cell) => sum + cell.kl, 0) / states.length;
  };
  const attempt = async (strength: number) => {
    const { matrix, bias } = await sums.solve(strength, pace);
    const translator: Translator =
      strength === Number.POSITIVE_INFINITY ? { strength: 'bias', bias } : { strength, matrix, bias };
    return { translator, strength, kl: await klOf(translator) };
  };
  let best = await attempt(start);
  for (const step of [1, -1]) {
    let at = STRENGTHS.indexOf(best.strength) + step;
    // What got better upwards was worse below.
    if (step < 0 && best.strength !== start) break;
    for (; STRENGTHS[at] !== undefined; at += step) {
      const next = await attempt(STRENGTHS[at] as number);
      if (next.kl >= best.kl) break;
      best = next;
    }
  }
  const plain: Translator = { strength: 'plain' };
  return (await klOf(plain)) <= best.kl ? { ...best, translator: plain } : best;
}
