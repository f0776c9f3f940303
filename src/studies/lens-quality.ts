import { logitLens } from '../lens/logit-lens.js';
import type { TunedLens } from '../lens/tuned-lens.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { bootstrapInterval, type Estimate, mean, type Observation } from '../stats/statistics.js';
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
  const { signal, onProgress } = options;
  const tested = drawTests(prompts, options);
  const divergences: PromptDivergence[] = [];
  for (const [i, one] of tested.entries()) {
    divergences.push(await promptDivergence(context, one, tuned, signal));
    onProgress?.({ done: i + 1, total: tested.length });
  }
  return lensQuality(divergences);
}

/** A prompt that lenses are tested on, and where. */
interface TestPrompt {
  readonly prompt: Prompt;
  readonly item: string;
  readonly positions: readonly number[];
}

/** How far lenses are from the model on one prompt. */
export interface PromptDivergence {
  readonly item: string;
  readonly positions: number;
  /** KL in nats, mean over the positions, of every layer but the last. */
  readonly plain: readonly number[];
  readonly tuned?: readonly number[];
}

/** @throws {XpatchError} INVALID_ARGUMENT for fewer than 2 prompts of more than one position */
export function drawTests(prompts: readonly Prompt[], options: LensQualityOptions): TestPrompt[] {
  const { positions = 8, seed = 1, items } = options;
  const random = new Random(seed, 'lens-quality');
  const tests = prompts.flatMap((prompt, i): TestPrompt[] => {
    if (prompt.length < 2) return [];
    const all = Array.from({ length: prompt.length - 1 }, (_, p) => p + 1);
    return [{ prompt, item: items?.[i] ?? String(i), positions: random.sample(all, Math.min(positions, all.length)) }];
  });
  if (tests.length >= 2) return tests;
  throw new XpatchError('INVALID_ARGUMENT', 'A lens is tested on at least 2 prompts of more than one position.');
}

export async function promptDivergence(
  context: Context,
  { prompt, item, positions }: TestPrompt,
  tuned: TunedLens | undefined,
  signal?: AbortSignal,
): Promise<PromptDivergence> {
  const { states } = await context.run({ prompt, capture: { positions } }, { signal });
  const kl = async (of: HiddenStates) => {
    const { cells } = await logitLens(context, of, { topK: 0, signal });
    return cells.slice(0, -1).map((row) => mean(row.map((cell) => cell.kl)));
  };
  const plain = await kl(states);
  const translated = tuned && (await kl(await tuned.apply(states, { signal })));
  return { item, positions: positions.length, plain, ...(translated && { tuned: translated }) };
}

/** Means over prompts, with intervals. */
export function lensQuality(divergences: readonly PromptDivergence[]): LensQuality {
  const estimate = (of: (one: PromptDivergence) => number) =>
    bootstrapInterval(
      divergences.map((one): Observation => ({ task: 'lens', seed: 0, item: one.item, value: of(one) })),
    );
  const isTuned = divergences.every(({ tuned }) => tuned !== undefined);
  const tunedOf = ({ tuned = [] }: PromptDivergence) => tuned;
  return {
    layers: (divergences[0]?.plain ?? []).map((_, layer) => ({
      layer,
      plain: estimate(({ plain }) => plain[layer] as number),
      ...(isTuned && { tuned: estimate((one) => tunedOf(one)[layer] as number) }),
    })),
    mean: {
      plain: estimate(({ plain }) => mean(plain)),
      ...(isTuned && {
        tuned: estimate((one) => mean(tunedOf(one))),
        gain: estimate((one) => mean(one.plain) - mean(tunedOf(one))),
      }),
    },
    prompts: divergences.length,
    positions: divergences.reduce((sum, { positions }) => sum + positions, 0),
  };
}
