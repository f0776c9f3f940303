import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { Prompt, PromptInput } from '../prompt/prompt.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import { XpatchError } from '../util/errors.js';
import { TaskVector } from '../vectors/task-vector.js';
import { HeadMap, headsOf, projectHeads } from './heads.js';
import { type MeasureOptions, measured, measureEach, tokenProbability } from './measure.js';

/** A prompt whose examples have wrong labels, and the first token of the right answer. */
export interface CorruptPrompt {
  readonly prompt: PromptInput;
  /** A token id, or a text that is one token after the prompt. */
  readonly answer: string | number;
}

/** What a function vector is made of. */
export interface FunctionVectorOptions extends MeasureOptions {
  /** Prompts of examples that show the task; their last position is read, or the mark named by `position`. */
  prompts: readonly PromptInput[];
  /** Prompts with shuffled labels, on which each head's effect is measured. */
  corrupt: readonly CorruptPrompt[];
  /** The mark whose position is read and written in all prompts. Defaults to their last position. */
  position?: string;
  /** What pictures are recorded as, see `Prompt.record`. */
  pictures?: ReadonlyMap<string, string> | undefined;
}

/** What each head does for a task. */
export interface HeadEffects {
  /** Average indirect effect: by how much the head's mean state over `prompts` raises the probability of the answer on `corrupt`. */
  readonly effects: HeadMap;
  /** The effects on each of `corrupt`, in their order. */
  readonly each: readonly HeadMap[];
  /** Mean probability of the answers on `corrupt` as they are. */
  readonly plain: number;
  /** The mean states of all heads (`z`) over `prompts`, layer by layer: one position. */
  readonly mean: HiddenStates;
  readonly prompts: readonly PromptRecord[];
}

/**
 * The average indirect effect of every attention head (Todd et al., "Function Vectors in Large Language Models", 2024): the mean of what
 * a head says over prompts of a task is written into prompts whose labels are shuffled, and the rise of the right answer's
 * probability is taken, head by head. Prompts may show pictures: then these are cross-modal effects.
 *
 * @throws {XpatchError} INVALID_ARGUMENT without prompts of both kinds, HOOK_UNSUPPORTED for a model whose heads cannot be read, and as
 *   `Context.pass`
 */
export async function headEffects(context: Context, options: FunctionVectorOptions): Promise<HeadEffects> {
  const { corrupt, position = 'last', signal, onProgress } = options;
  if (options.prompts.length === 0 || corrupt.length === 0) {
    throw new XpatchError('INVALID_ARGUMENT', 'Head effects need prompts of the task and corrupt ones. Give both.');
  }
  const heads = headsOf(context);
  const layers = [...new Set(heads.map(({ layer }) => layer))];
  const rows: { prompt: Prompt; capture: { hook: 'z'; layers: number[]; positions: number } }[] = [];
  for (const input of options.prompts) {
    const prompt = await context.model.prompt(input, { signal });
    rows.push({ prompt, capture: { hook: 'z', layers, positions: prompt.position(position) } });
  }
  const mean = meanStates((await context.pass(rows, { signal })).map(({ states }) => states));
  const maps: HeadMap[] = [];
  let plain = 0;
  for (const [i, { prompt, answer }] of corrupt.entries()) {
    const measuring = await measured(context, prompt, tokenProbability(answer), signal);
    const at = measuring.prompt.position(position);
    const edits = heads.map(({ layer, head }) => [
      { hook: 'z', layers: layer, heads: [head], positions: at, op: 'replace', value: mean.head(layer, head) } as const,
    ]);
    const result = await measureEach(context, measuring, edits, {
      signal,
      onProgress: ({ done, total }) => onProgress?.({ done: i + done / total, total: corrupt.length }),
    });
    plain += result.plain / corrupt.length;
    maps.push(
      new HeadMap(
        heads,
        result.values.map((value) => value - result.plain),
      ),
    );
  }
  return {
    effects: HeadMap.mean(maps),
    each: maps,
    plain,
    mean,
    prompts: rows.map(({ prompt }) => prompt.record(options.pictures)),
  };
}

/**
 * A function vector (Todd et al. 2024): what the heads with the largest effect add to the residual stream, summed over their layers. It
 * is one direction, here at every layer, so that `sweepLayers` and `eval` find where it works best; `at` adds it.
 *
 * Where a model has a norm after its attention (Gemma 2 and 3), each layer's part is what comes out of that norm for these heads alone.
 *
 * @param effects of `headEffects`, on the same model
 * @param top how many heads
 * @throws {XpatchError} INVALID_ARGUMENT for no head or more than there are; and as `Context.pass`
 */
export async function functionVector(context: Context, effects: HeadEffects, top: number): Promise<TaskVector> {
  const { model } = context;
  const { mean, prompts } = effects;
  if (!Number.isInteger(top) || top < 1 || top > effects.effects.heads.length) {
    throw new XpatchError(
      'INVALID_ARGUMENT',
      `From 1 to ${effects.effects.heads.length} heads make a vector, not ${top}.`,
    );
  }
  const heads = effects.effects.best(top);
  const chosen = new Set(heads.map(({ layer, head }) => `${layer} ${head}`));
  const [added = []] = await projectHeads(context, mean, [({ layer, head }) => chosen.has(`${layer} ${head}`)]);
  const sum = new Float64Array(model.info.nEmbd);
  for (const vector of added) for (const [d, x] of vector.entries()) sum[d] = (sum[d] as number) + x;
  const all = Array.from({ length: model.info.nLayers }, (_, layer) => layer);
  const data = new Float32Array(all.length * sum.length);
  for (const layer of all) data.set(sum, layer * sum.length);
  return new TaskVector(
    {
      model: model.identity,
      hook: 'resid_post',
      layers: all,
      readPosition: 'last',
      origin: { op: 'function', heads: heads.map(({ layer, head }) => ({ layer, head })), prompts },
    },
    data,
  );
}

/** Mean over states of one position and the same layers. */
function meanStates(states: readonly HiddenStates[]): HiddenStates {
  const [first] = states as [HiddenStates];
  const sum = new Float64Array(first.data.length);
  for (const { data } of states) for (const [i, x] of data.entries()) sum[i] = (sum[i] as number) + x / states.length;
  return first.withData(Float32Array.from(sum));
}
