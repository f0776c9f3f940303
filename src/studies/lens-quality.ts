import { logitLens } from '../lens/logit-lens.js';
import type { TunedLens } from '../lens/tuned-lens.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { bootstrapInterval, type Estimate, type Observation } from '../stats/statistics.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';

/** On which states lenses are compared. */
export interface LensQualityOptions {
  /** Largest number of positions of each prompt, drawn by seed, never the first one. Defaults to 8. */
  positions?: number;
  /** What each prompt is about: those with the same name are resampled together. Defaults to names of their own. */
  items?: readonly string[];
  /** Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  /** Prompts done of all. */
  onProgress?: OnProgress;
}

/** KL divergence of a lens from the model's own distribution, nats: means over prompts with 95 % bootstrap intervals. */
export interface LensQuality {
  /** All but the last one, where every lens is the model itself. */
  layers: { layer: number; plain: Estimate; tuned?: Estimate }[];
  /** Mean over these layers; `gain` is plain minus tuned, prompt by prompt. */
  mean: { plain: Estimate; tuned?: Estimate; gain?: Estimate };
  prompts: number;
  positions: number;
}

/**
 * How well lenses foretell what the model will say: KL of the model's final distribution from the lens's, per layer, for the
 * plain lens and a tuned one. Resampled are items with all their prompts, each with the mean over its positions.
 *
 * @param prompts at least 2, none of which the tuned lens was fitted on
 * @throws {XpatchError} INVALID_ARGUMENT, and as `Context.pass` and `logitLens`
 */
export async function evaluateLens(
  context: Context,
  prompts: readonly Prompt[],
  tuned: TunedLens | undefined,
  options: LensQualityOptions = {},
): Promise<LensQuality> {
  const { positions = 8, seed = 1, signal, onProgress } = options;
  const { nLayers } = context.model.info;
  const usable = prompts.filter((prompt) => prompt.length > 1);
  const items = prompts.map((_, i) => options.items?.[i] ?? String(i)).filter((_, i) => (prompts[i]?.length ?? 0) > 1);
  if (usable.length < 2) {
    throw new XpatchError('INVALID_ARGUMENT', 'A lens is tested on at least 2 prompts of more than one position.');
  }
  const random = new Random(seed, 'lens-quality');
  /** [prompt][layer] mean KL. */
  const plain: number[][] = [];
  const translated: number[][] = [];
  let count = 0;
  for (const [i, prompt] of usable.entries()) {
    const all = Array.from({ length: prompt.length - 1 }, (_, p) => p + 1);
    const chosen = random.sample(all, Math.min(positions, all.length));
    const { states } = await context.run({ prompt, capture: { positions: chosen } }, { signal });
    const kl = async (of: HiddenStates) => {
      const { cells } = await logitLens(context, of, { topK: 0, signal });
      return cells.slice(0, -1).map((row) => row.reduce((sum, cell) => sum + cell.kl, 0) / row.length);
    };
    plain.push(await kl(states));
    if (tuned) translated.push(await kl(await tuned.apply(states, { signal })));
    count += chosen.length;
    onProgress?.({ done: i + 1, total: usable.length });
  }
  const meanOf = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
  const estimate = (values: readonly number[]) =>
    bootstrapInterval(
      values.map((value, i): Observation => ({ task: 'lens', seed: 0, item: items[i] as string, value })),
    );
  const layers = Array.from({ length: nLayers - 1 }, (_, layer) => ({
    layer,
    plain: estimate(plain.map((row) => row[layer] as number)),
    ...(tuned && { tuned: estimate(translated.map((row) => row[layer] as number)) }),
  }));
  const means = plain.map(meanOf);
  return {
    layers,
    mean: {
      plain: estimate(means),
      ...(tuned && {
        tuned: estimate(translated.map(meanOf)),
        gain: estimate(translated.map((row, i) => (means[i] as number) - meanOf(row))),
      }),
    },
    prompts: usable.length,
    positions: count,
  };
}
