import type { HookName, LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { RowInput } from '../model/pass.js';
import type { OnProgress } from '../model/types.js';
import type { PositionSelection } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { type Metric, measured, measureEach, type PatchTops } from './measure.js';

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
  /** Best tokens to keep of each patch, see `tops`. Defaults to none. */
  topK?: number;
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
    /** With `topK`: the best next tokens. */
    readonly tops?: PatchTops,
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

/**
 * Activation patching (Meng et al. 2022; Wang et al. 2023): each state of one prompt is written, alone, at its place into
 * another one, and a metric of the answer is taken. What the patched prompts have in common is decoded once.
 *
 * With noise on the embeddings of `into`, and the same prompt without it as `from`, this is causal tracing (Meng et al. 2022).
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
  const { hook = 'resid_post', topK, signal, onProgress } = options;
  const { from, into, positions } = await promptsOf(context, options);
  const capture = { hook, layers: options.layers, positions };
  const row = { ...from.row, capture, logits: 'last' as const, topK: topK ?? 0 };
  const { states, logits, top } = await context.run(row, { signal });
  const { layers } = states;
  // Positions outside: what comes before one is shared by the patches of all its layers.
  const edits = positions.flatMap((position) =>
    layers.map((layer) => [
      { hook, layers: layer, positions: position, op: 'replace' as const, value: states.at(layer, position) },
    ]),
  );
  const { plain, values, tops } = await measureEach(context, into, edits, { topK, signal, onProgress });
  const order = layers.flatMap((_, l) => positions.map((_, p) => p * layers.length + l));
  const [corrupt = [], ...patched] = tops;
  const kept = topK ? { clean: top, corrupt, patched: order.map((i) => patched[i] ?? []) } : undefined;
  const inputs = positions.map((position) => into.prompt.tokens[position] as number);
  const byLayer = Float64Array.from(order, (i) => values[i] as number);
  return new PatchMap(layers, positions, inputs, byLayer, into.measure(logits.data), plain, kept);
}

/** Both prompts of a patching, and the positions that are patched. @throws {XpatchError} INVALID_ARGUMENT if their lengths differ */
export async function promptsOf(
  context: Context,
  options: Pick<PatchLayersOptions, 'from' | 'into' | 'metric' | 'positions' | 'signal'>,
) {
  const { metric, positions = 'all', signal } = options;
  const from = await measured(context, options.from, metric, signal);
  const into = await measured(context, options.into, metric, signal);
  if (from.prompt.length === into.prompt.length) return { from, into, positions: into.prompt.positions(positions) };
  const problem = `The prompts have ${from.prompt.length} and ${into.prompt.length} positions, so their states do not correspond`;
  throw new XpatchError('INVALID_ARGUMENT', `${problem}. Choose texts of equally many tokens.`);
}
