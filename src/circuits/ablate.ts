import type { HookName, Intervention, StateSet } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { RowInput } from '../model/pass.js';
import { XpatchError } from '../util/errors.js';
import { type Head, headsOf } from './heads.js';
import { type MeasureOptions, type Metric, measured, measureEach } from './measure.js';

/** A prompt with the number that is taken of its answer. */
export interface Item {
  readonly query: RowInput;
  readonly metric: Metric;
}

/** What is taken out: a block's attention, its MLP, both, or a head. */
export type AblatedPart = 'attn_out' | 'mlp_out' | 'block' | 'z';

/** How it is taken out. */
export interface AblateOptions extends MeasureOptions {
  /** `zero`: nothing stays; `mean`: what is the mean of `of`. Defaults to `zero`. */
  op?: 'zero' | 'mean';
  /** For `mean`: captures of the point over other prompts; of both points for `block`. */
  of?: readonly StateSet[];
  /** Defaults to all that have the point. */
  layers?: readonly number[];
}

/** The mean over items of a metric, and what it is without a part of the model. */
export interface Ablation {
  /** With nothing taken out. */
  readonly plain: number;
  /** `head` for `z` alone. */
  readonly without: readonly { readonly layer: number; readonly head?: number; readonly value: number }[];
}

/**
 * Takes attention, MLPs, whole blocks or single heads out, one at a time and at all positions, and says what that does to a metric on average
 * over items.
 *
 * @param what `attn_out` and `mlp_out`: what a block's attention or MLP adds; `block`: both; `z`: a head
 * @throws {XpatchError} INVALID_ARGUMENT without items, or for `mean` without states; HOOK_UNSUPPORTED; and as `Context.pass`
 */
export async function ablate(
  context: Context,
  items: readonly Item[],
  what: AblatedPart,
  options: AblateOptions = {},
): Promise<Ablation> {
  const { op = 'zero', of, signal, onProgress } = options;
  if (items.length === 0)
    throw new XpatchError('INVALID_ARGUMENT', 'There are no items to measure. Give at least one.');
  if ((op === 'mean') !== (of !== undefined)) {
    throw new XpatchError(
      'INVALID_ARGUMENT',
      'The states whose mean is put in belong to the op mean: give `of` with it.',
    );
  }
  const hooks = hooksOf(what);
  const parts: (Head | { layer: number })[] =
    what === 'z' ? headsOf(context, options.layers) : layersOf(context, hooks, options.layers);
  const edits = parts.map((part) =>
    hooks.map(
      (hook): Intervention => ({
        hook,
        layers: part.layer,
        ...('head' in part && { heads: [part.head] }),
        positions: 'all',
        op,
        ...(of && { of: of.filter((states) => states.hook === hook) }),
      }),
    ),
  );
  const sums = new Float64Array(parts.length);
  let plain = 0;
  for (const [i, { query, metric }] of items.entries()) {
    const measuring = await measured(context, query, metric, signal);
    const result = await measureEach(context, measuring, edits, {
      signal,
      onProgress: ({ done, total }) => onProgress?.({ done: i + done / total, total: items.length }),
    });
    plain += result.plain / items.length;
    for (const [p, value] of result.values.entries()) sums[p] = (sums[p] as number) + value / items.length;
  }
  return { plain, without: parts.map((part, p) => ({ ...part, value: sums[p] as number })) };
}

/** The points of a part. */
export function hooksOf(what: AblatedPart): readonly ('attn_out' | 'mlp_out' | 'z')[] {
  return what === 'block' ? ['attn_out', 'mlp_out'] : [what];
}

function layersOf(context: Context, hooks: readonly HookName[], layers: readonly number[] | undefined) {
  const having = hooks.map((hook) => {
    const there = context.hooks.find((point) => point.hook === hook)?.layers ?? [];
    // Where none has it, all are asked for, so that the error says why.
    return context.points.layers(hook, layers ?? (there.length > 0 ? there : 'all'));
  });
  return having.reduce((all, some) => all.filter((layer) => some.includes(layer))).map((layer) => ({ layer }));
}
