import type { Head } from '../circuits/heads.js';
import { measured, tokenProbability } from '../circuits/measure.js';
import { taskHeadEffects } from '../circuits/task-heads.js';
import type { Edge } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { answerTokens, plainAnswers, requireApart } from '../tasks/answer-tokens.js';
import { fewShotPrompt, type Modality, queryPrompt, type VectorExamples, vectorExamples } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { loadTask } from '../tasks/task.js';
import { PAPER_TEMPLATE } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import { requireModalities } from './modalities.js';
import { runStudy, type Study, type StudyEvents, type TaskPromptOptions } from './study.js';

/** Which heads are looked at. */
export interface HeadsOptions extends TaskPromptOptions {
  /** Prompts of each kind. Defaults to 10. */
  prompts?: number;
  /** Best heads that are compared. Defaults to 10. */
  top?: number;
}

/** What examples of one modality do before a picture query. */
export interface ModalityHeads {
  readonly modality: Modality;
  /** Effect of every head on each prompt (`headEffects`), [prompts][heads]. */
  readonly effects: readonly (readonly number[])[];
  /** Probability of the right answer after examples and a picture query, prompt by prompt. */
  readonly plain: readonly number[];
  /** The same where the last token does not see the picture of the query, or the examples, in one layer: [layers][prompts]. */
  readonly withoutPicture: readonly (readonly number[])[];
  readonly withoutExamples: readonly (readonly number[])[];
}

/** One task. */
export interface HeadsCell {
  readonly task: string;
  /** In the order of `effects`. */
  readonly heads: readonly Head[];
  /** Text examples, then image examples. */
  readonly modalities: readonly ModalityHeads[];
}

const MODALITIES: readonly Modality[] = ['text', 'image'];

/**
 * Which heads carry a task that is shown in text and asked about in pictures: the effect of every head, of text and of image examples
 * (`taskHeadEffects`), and what the answer loses where the last token no longer sees the picture, or the examples, in one layer.
 *
 * @throws {XpatchError} IMAGE_UNSUPPORTED, TASK_INVALID, HOOK_UNSUPPORTED, MARK_AMBIGUOUS, and as `Context.pass`
 */
export function runHeads(
  context: Context,
  options: HeadsOptions,
  events: StudyEvents<HeadsCell> = {},
): Promise<HeadsCell[]> {
  return runStudy(headsUnits, context, options, events);
}

/** A part for each task. */
export const headsUnits: Study<HeadsOptions, HeadsCell> = async (context, options) => {
  const { tasks, seed = 1, style, shots = 5, prompts = 10 } = options;
  requireModalities(context.model, MODALITIES);
  if (!Number.isSafeInteger(prompts) || prompts < 2) {
    throw new XpatchError('INVALID_ARGUMENT', `An interval needs at least 2 prompts, not ${String(prompts)}.`);
  }
  const splits: TaskSplit[] = [];
  for (const name of tasks) {
    const task = await loadTask(name, { pictures: true, ...(style !== undefined && { style }) });
    splits.push(splitTask(task, seed, { pictures: true, validation: Math.max(30, prompts) }));
  }
  return splits.map((split) => ({
    name: split.task.name,
    run: async (_, { signal, onProgress }) => {
      const found: ModalityHeads[] = [];
      let heads: readonly Head[] = [];
      for (const [i, spec] of MODALITIES.entries()) {
        const { effects, each } = await taskHeadEffects(context, split, {
          spec,
          shots,
          prompts,
          corrupt: prompts,
          signal,
          onProgress: ({ done, total }) => onProgress((i + (0.8 * done) / total) / MODALITIES.length),
        });
        heads = effects.heads;
        const cut = await knockOut(context, vectorsOf(split, shots, prompts), spec, signal);
        found.push({ modality: spec, effects: each.map(({ values }) => [...values]), ...cut });
      }
      return { task: split.task.name, heads, modalities: found };
    },
  }));
};

function vectorsOf(split: TaskSplit, shots: number, count: number): VectorExamples[] {
  return vectorExamples(split, { shots, count, readPosition: 'dummy-query' });
}

const EXAMPLES = 'examples';

/** Probabilities of the answer to picture queries, with all edges and without some of one layer. */
async function knockOut(
  context: Context,
  prompts: readonly VectorExamples[],
  spec: Modality,
  signal: AbortSignal | undefined,
): Promise<Omit<ModalityHeads, 'modality' | 'effects'>> {
  const { model } = context;
  const layers = Array.from({ length: model.info.nLayers }, (_, layer) => layer);
  const plain: number[] = [];
  const [withoutPicture, withoutExamples] = [layers.map((): number[] => []), layers.map((): number[] => [])];
  for (const { whole, query } of prompts) {
    const parts = fewShotPrompt(whole, spec, query, 'image');
    const asked = queryPrompt(query, 'image');
    const marked = parts.toSpliced(parts.length - asked.length, 0, { mark: EXAMPLES });
    const [answer] = await answerTokens(model, parts, plainAnswers(PAPER_TEMPLATE), [query.output]);
    if (answer === undefined) continue;
    requireApart(answer, parts, query.output);
    const metric = tokenProbability(answer.tokens[answer.first] as number);
    const { prompt, measure } = await measured(context, marked, metric, signal);
    const end = prompt.position(EXAMPLES);
    const picture = prompt.pictures.filter(({ first }) => first > end);
    const seen = picture.flatMap(({ first, nRows }) => Array.from({ length: nRows }, (_, row) => first + row));
    // Every token may be looking at a BOS, whatever the examples are.
    const examples = { from: prompt.tokens[0] === model.info.bosToken ? 1 : 0, to: end };
    const edges = [seen, examples].flatMap((from) =>
      layers.map((layer): Edge => ({ layers: layer, from, to: 'last' })),
    );
    const rows = [[], ...edges.map((edge) => [edge])].map((some) => ({ prompt, edges: some, logits: 'last' as const }));
    const [all, ...cut] = (await context.pass(rows, { signal })).map(({ logits }) => measure(logits.data));
    plain.push(all as number);
    for (const layer of layers) {
      withoutPicture[layer]?.push(cut[layer] as number);
      withoutExamples[layer]?.push(cut[layers.length + layer] as number);
    }
  }
  return { plain, withoutPicture, withoutExamples };
}
