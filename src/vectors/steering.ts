import { resolveLayers } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { OnProgress } from '../model/types.js';
import type { PromptInput } from '../prompt/prompt.js';
import { meanDifference, principalDifference } from '../stats/direction.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { TaskVector } from './task-vector.js';

/** How a direction is made of states: see `steeringVector`. */
export const STEERING_METHODS = ['mean', 'pca'] as const;
/** How a direction is made of states: see `steeringVector`. */
export type SteeringMethod = (typeof STEERING_METHODS)[number];

/** What a steering vector is made from. */
export interface SteeringOptions {
  /** Prompts that show what you want. Their last position is read. */
  positive: readonly PromptInput[];
  /** Prompts that show the opposite. For `pca` as many as `positive`, in pairs with them. */
  negative: readonly PromptInput[];
  /**
   * - `mean`: the mean of the positive states minus that of the negative ones (Turner et al. 2023; Rimsky et al. 2024), as long as
   *   the states are apart;
   * - `pca`: the first principal component of the differences of pairs (Zou et al. 2023), of length 1: as repeng's `pca_center` and
   *   llama.cpp's cvector-generator.
   *
   * Defaults to `mean`.
   */
  method?: SteeringMethod;
  /** Defaults to `all`. */
  layers?: LayerSelection;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/**
 * A steering vector: for each layer a direction of the residual stream that leads from the negative prompts to the positive ones.
 * `vector.at(layers, { strength: 4, positions: 'all', steps: 'all' })` adds it.
 *
 * @returns [layers, n_embd], of the residual stream after each block
 * @throws {XpatchError} INVALID_ARGUMENT without prompts of both kinds, or for `pca` if their numbers differ; VECTOR_INVALID if
 *   they do not differ; and as `Context.pass`
 *
 * @example
 * ```ts
 * const direction = await steeringVector(context, { positive: ['Q:Peru\nA:'], negative: ['Q:Japan\nA:'] });
 * const steering = direction.at([2, 3], { strength: 4, positions: 'all', steps: 'all' });
 * const [answer] = await context.generate([{ prompt: 'Q:Chile\nA:', interventions: [steering] }], { maxTokens: 8 });
 * ```
 */
export async function steeringVector(context: Context, options: SteeringOptions): Promise<TaskVector> {
  const { positive, negative, method = 'mean', signal, onProgress } = options;
  const { model } = context;
  if (positive.length === 0 || negative.length === 0) {
    const missing = positive.length === 0 ? 'positive' : 'negative';
    throw new XpatchError('INVALID_ARGUMENT', `There are no ${missing} prompts. Give at least one of each kind.`);
  }
  if (method === 'pca' && positive.length !== negative.length) {
    const problem = `${positive.length} positive and ${negative.length} negative prompts do not make pairs`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. Give equally many of each, or use the method mean.`);
  }
  const layers = resolveLayers(options.layers ?? 'all', model.info.nLayers).sort((a, b) => a - b);
  const capture = { layers, positions: 'last' } as const;
  const rows = [];
  const pace = new Pace(signal);
  for (const prompt of [...positive, ...negative]) {
    rows.push({ prompt: await model.prompt(prompt, { signal }), capture });
    if (pace.due()) await pace.rest();
  }
  const results = await context.pass(rows, { signal, onProgress });
  const direction = method === 'mean' ? meanDifference : principalDifference;
  const data = layers.flatMap((layer) => {
    const states = results.map((result) => result.states.at(layer));
    return [...direction(states.slice(0, positive.length), states.slice(positive.length))];
  });
  if (data.every((x) => x === 0 || Number.isNaN(x))) {
    const problem = 'The positive and the negative prompts have the same states: there is no direction between them';
    throw new XpatchError('VECTOR_INVALID', `${problem}. Give prompts that differ.`);
  }
  const records = results.map(({ prompt }) => prompt.record());
  return new TaskVector(
    {
      model: model.identity,
      hook: 'resid_post',
      layers,
      readPosition: 'last',
      origin: {
        op: 'contrast',
        method,
        positive: records.slice(0, positive.length),
        negative: records.slice(positive.length),
      },
    },
    data,
  );
}
