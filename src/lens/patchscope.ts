import { resolveLayers } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { Generation } from '../model/generate.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import type { OnProgress } from '../model/types.js';
import type { PromptInput } from '../prompt/prompt.js';
import type { PositionRef } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { asStates } from './states.js';

/**
 * The token identity prompt of the paper (Ghandeharioun et al. 2024, arXiv 2401.06102, section 4.1, and its released code):
 * tokens mapped to themselves, then one that the patched state takes the place of.
 */
export const IDENTITY_PROMPT = 'cat -> cat\n1135 -> 1135\nhello -> hello\n?';

/** Which states are decoded, and in which target prompt. */
export interface PatchscopeOptions {
  /** Which layers of the states are decoded. Defaults to `all` that they have. */
  layers?: LayerSelection;
  /** Which position of the states is decoded: one of `states.positions`. Defaults to the last entry of these. */
  position?: number;
  /** The prompt that a state is patched into, built by or for the context's model. Defaults to `IDENTITY_PROMPT`. */
  targetPrompt?: PromptInput;
  /** Where in it. Defaults to `last`. */
  targetPosition?: PositionRef;
  /** Blocks whose output is replaced: each state goes to each of them, or to its own layer only. Defaults to `same`. */
  targetLayers?: 'same' | LayerSelection;
  /** Defaults to 8. */
  maxTokens?: number;
  signal?: AbortSignal;
  /** Positions decoded of all. */
  onProgress?: OnProgress;
}

/** What the model says with one state in place of another. */
export interface DecodedState extends Pick<Generation, 'text' | 'tokens' | 'finish'> {
  /** 0-based block output that the state was read from. */
  sourceLayer: number;
  /** 0-based block whose output it replaced. */
  targetLayer: number;
  /** L2 norm of the change; 0 only if the state was there already. */
  delta: number;
}

/** What a model says with each state patched into the target prompt. */
export interface Patchscope {
  /** Position of the states in their own prompt. */
  sourcePosition: number;
  /** Position in the target prompt. */
  targetPosition: number;
  /** Token ids of the target prompt, -1 for a row of a picture. */
  targetTokens: number[];
  /** What the model says to the target prompt without a patch. */
  plain: Pick<Generation, 'text' | 'tokens' | 'finish'>;
  /** Source layers in the order asked for, each with its target layers. */
  decoded: DecodedState[];
}

/**
 * Patchscopes (Ghandeharioun et al. 2024): lets a model say in its own words what a state holds, by generating from a target
 * prompt in which the state replaces that of one token. All layers go through one batch. The states may come from
 * another model of equal width; they are patched in as they are, without a map between the models.
 *
 * @param context of the model that decodes
 * @param states captured states of any model of this width, or a task vector
 * @throws {XpatchError} INVALID_ARGUMENT for no states; VECTOR_MISMATCH for another width; LAYER_OUT_OF_RANGE for a layer that the states or the model lack;
 *   POSITION_OUT_OF_RANGE, and as `Context.generate`.
 *
 * @example
 * ```ts
 * const { states } = await context.run({ prompt: 'Q:Peru\nA:', capture: { positions: 'last' } });
 * const { decoded } = await patchscope(context, states, { layers: [2, 3] });
 * for (const { sourceLayer, text } of decoded) console.log(sourceLayer, text);
 * ```
 */
export async function patchscope(
  context: Context,
  states: HiddenStates | TaskVector | PassResult,
  options: PatchscopeOptions = {},
): Promise<Patchscope> {
  const { layers = 'all', targetPosition = 'last', targetLayers = 'same', maxTokens = 8, signal, onProgress } = options;
  const { model } = context;
  const source = asStates(states);
  const [, , width] = source.shape;
  if (width !== model.info.nEmbd) {
    const problem = `States of width ${width} do not fit ${model.identity.name || 'a model'} of width ${model.info.nEmbd}`;
    throw new XpatchError('VECTOR_MISMATCH', `${problem}. Patchscopes need models of equal width.`);
  }
  const sourcePosition = options.position ?? (source.positions.at(-1) as number);
  if (!source.positions.includes(sourcePosition)) {
    const problem = `The states have no position ${sourcePosition}`;
    throw new XpatchError('POSITION_OUT_OF_RANGE', `${problem}. Choose one of ${source.positions.join(', ')}.`);
  }
  const targets = targetLayers === 'same' ? undefined : resolveLayers(targetLayers, model.info.nLayers);
  const pairs = (layers === 'all' ? source.layers : layers).flatMap((sourceLayer) =>
    (targets ?? [sourceLayer]).map((targetLayer) => ({
      sourceLayer,
      targetLayer,
      value: source.at(sourceLayer, sourcePosition),
    })),
  );
  if (pairs.length === 0)
    throw new XpatchError('INVALID_ARGUMENT', 'No layers were given. Name at least one, or use "all".');

  const { targetPrompt = [IDENTITY_PROMPT] } = options;
  const prompt = await model.prompt(targetPrompt, { signal });
  const position = prompt.position(targetPosition);
  const patched = pairs.map(({ targetLayer, value }) => ({
    prompt,
    interventions: [{ hook: source.hook, layers: targetLayer, positions: position, op: 'replace' as const, value }],
  }));
  const [plain, ...rest] = await context.generate([{ prompt }, ...patched], { maxTokens, signal, onProgress });
  const said = ({ text, tokens, finish }: Generation) => ({ text, tokens, finish });
  return {
    sourcePosition,
    targetPosition: position,
    targetTokens: [...prompt.tokens],
    plain: said(plain as Generation),
    decoded: rest.map((generation, i) => {
      const { sourceLayer, targetLayer } = pairs[i] as (typeof pairs)[number];
      const [report] = generation.interventions;
      if (!report) throw new XpatchError('HOOK_NOT_FIRED', `The state of layer ${sourceLayer} was not patched in.`);
      return { sourceLayer, targetLayer, ...said(generation), delta: report.delta };
    }),
  };
}
