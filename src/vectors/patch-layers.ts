import { resolveLayers } from '../hooks/points.js';
import type { HookName, LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { asRow, type RowInput } from '../model/pass.js';
import { logSumExp, trackedTokens } from '../model/tracked.js';
import type { OnProgress } from '../model/types.js';
import type { PositionSelection } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';

/** One number that says how the model answers. */
export interface Metric {
  /** Token ids, or texts that are one token after the prompt, that the number is made of. */
  readonly track: readonly (string | number)[];
  /**
   * The number.
   *
   * @param logits of the last position, [n_vocab]
   * @param tokens ids of `track`
   */
  value(logits: Float32Array, tokens: readonly number[]): number;
}

/**
 * By how much the logit of one token is above that of another; each an id, or a text that is one token after the prompt.
 *
 * @example
 * ```ts
 * const metric = logitDifference('Tokyo', 'Cairo');
 * const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
 * ```
 */
export function logitDifference(right: string | number, wrong: string | number): Metric {
  return {
    track: [right, wrong],
    value: (logits, [a, b]) => (logits[a as number] as number) - (logits[b as number] as number),
  };
}

/**
 * Probability of a token, an id or a text that is one token after the prompt, under the softmax over the whole vocabulary.
 *
 * @example
 * ```ts
 * const metric = tokenProbability('Tokyo');
 * const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
 * ```
 */
export function tokenProbability(token: string | number): Metric {
  return {
    track: [token],
    value: (logits, [id]) => Math.exp((logits[id as number] as number) - logSumExp(logits)),
  };
}

/** Two prompts, what is measured, and which states are patched from one into the other. */
export interface PatchLayersOptions {
  /** Where states are read: usually the clean prompt. */
  from: RowInput;
  /** Where they are written, one at a time: usually the corrupt prompt. It has as many positions as `from`. */
  into: RowInput;
  metric: Metric;
  /** Defaults to `resid_post`. */
  hook?: HookName;
  /** Defaults to `all`. */
  layers?: LayerSelection;
  /** Defaults to `all`. */
  positions?: PositionSelection;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/** What patching each state alone does to a metric: layers x positions. */
export class PatchMap {
  /** @internal Use `patchLayers`. */
  constructor(
    readonly layers: readonly number[],
    /** Positions in both prompts. */
    readonly positions: readonly number[],
    /** Token ids of `into` at these positions, -1 for a row of a picture. */
    readonly tokens: readonly number[],
    /** The metric after each patch, [layers, positions], row by row. */
    readonly values: Float64Array,
    /** The metric of `from`, and of `into` without a patch. */
    readonly clean: number,
    readonly corrupt: number,
  ) {}

  /**
   * The metric with one state patched.
   *
   * @throws {XpatchError} LAYER_OUT_OF_RANGE, POSITION_OUT_OF_RANGE for what was not patched
   */
  at(layer: number, position: number): number {
    const [l, p] = [this.layers.indexOf(layer), this.positions.indexOf(position)];
    if (l < 0) throw new XpatchError('LAYER_OUT_OF_RANGE', `Layer ${layer} was not patched.`);
    if (p < 0) throw new XpatchError('POSITION_OUT_OF_RANGE', `Position ${position} was not patched.`);
    return this.values[l * this.positions.length + p] as number;
  }

  /** The same as a share of the way from `corrupt` (0) to `clean` (1). */
  recovered(layer: number, position: number): number {
    return (this.at(layer, position) - this.corrupt) / (this.clean - this.corrupt);
  }
}

/** Logits that are held at a time. */
const MAX_BYTES = 64e6;

/**
 * Activation patching (Meng et al. 2022; Wang et al. 2023): each state of one prompt is written, alone, at its place into
 * another one, and a metric of the answer is taken. What the patched prompts have in common is decoded once.
 *
 * @throws {XpatchError} INVALID_ARGUMENT when the prompts differ in length or a text of the metric is not one token, and as `Context.pass`.
 *
 * @example
 * ```ts
 * const metric = logitDifference('Tokyo', 'Cairo');
 * const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
 * console.log(map.recovered(3, 1));   // 0: as in the prompt patched into, 1: as in the prompt patched from
 * ```
 */
export async function patchLayers(context: Context, options: PatchLayersOptions): Promise<PatchMap> {
  const { metric, hook = 'resid_post', signal, onProgress } = options;
  const { model } = context;
  const [from, into] = [asRow(options.from), asRow(options.into)];
  const [clean, corrupt] = [await model.prompt(from.prompt, { signal }), await model.prompt(into.prompt, { signal })];
  if (clean.length !== corrupt.length) {
    const problem = `The prompts have ${clean.length} and ${corrupt.length} positions, so their states have no common places`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Choose texts of as many tokens.`);
  }
  const tokens = await trackedTokens(model, corrupt, metric.track);
  const measure = (logits: { data: Float32Array }) => metric.value(logits.data, tokens);
  const layers = resolveLayers(options.layers ?? 'all', model.info.nLayers);
  const positions = corrupt.positions(options.positions ?? 'all');
  const { interventions = [] } = into;
  const [read, plain] = await context.pass(
    [
      { ...from, prompt: clean, capture: { hook, layers, positions }, logits: 'last' },
      { ...into, prompt: corrupt, logits: 'last' },
    ] as const,
    { signal },
  );
  // Positions outside: what comes before one is shared by the patches of all its layers.
  const places = positions.flatMap((position, p) => layers.map((layer, l) => ({ layer, l, position, p })));
  const values = new Float64Array(places.length);
  const held = Math.max(1, Math.floor(MAX_BYTES / (Float32Array.BYTES_PER_ELEMENT * model.info.nVocab)));
  for (let first = 0; first < places.length; first += held) {
    const some = places.slice(first, first + held);
    const rows = some.map(({ layer, position }) => {
      const value = read.states.at(layer, position);
      const patch = { hook, layers: layer, positions: position, op: 'replace' as const, value };
      return { prompt: corrupt, interventions: [...interventions, patch], logits: 'last' };
    });
    const results = await context.pass(rows, {
      signal,
      onProgress: ({ done, total }) =>
        onProgress?.({ done: first + (some.length * done) / total, total: places.length }),
    });
    for (const [i, { l, p }] of some.entries()) {
      values[l * positions.length + p] = measure((results[i] as (typeof results)[number]).logits);
    }
  }
  const inputs = positions.map((position) => corrupt.tokens[position] as number);
  return new PatchMap(layers, positions, inputs, values, measure(read.logits), measure(plain.logits));
}
