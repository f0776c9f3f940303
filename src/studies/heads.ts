import { isDeepStrictEqual } from 'node:util';
import type { Head } from '../circuits/heads.js';
import { measured, tokenProbability } from '../circuits/measure.js';
import { taskHeadEffects } from '../circuits/task-heads.js';
import type { Edge } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { answerTokens, requireApart } from '../tasks/answer-tokens.js';
import { promptFormat } from '../tasks/model-format.js';
import type { PromptFormat } from '../tasks/prompt-format.js';
import { type Modality, type VectorExamples, vectorExamples } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { loadTask } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { requireModalities } from './modalities.js';
import { runStudy, type Study, type StudyEvents, type TaskPromptOptions } from './study.js';

/** Which heads are looked at. */
export interface HeadsOptions extends Omit<TaskPromptOptions, 'seeds'> {
  /** Of the items and the examples. Defaults to 1. */
  seed?: number;
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
  readonly domain: string;
  /** Inputs of the queries, prompt by prompt. */
  readonly items: readonly string[];
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
  const { tasks, seed = 1, style, shots = 5, prompts = 10, template } = options;
  requireModalities(context.model, MODALITIES);
  if (!Number.isSafeInteger(prompts) || prompts < 2) {
    throw new XpatchError('INVALID_ARGUMENT', `An interval needs at least 2 prompts, not ${String(prompts)}.`);
  }
  const format = await promptFormat(context.model, template);
  const splits: TaskSplit[] = [];
  for (const name of tasks) {
    const task = await loadTask(name, { pictures: true, ...(style !== undefined && { style }) });
    splits.push(splitTask(task, seed, { pictures: true, validation: Math.max(30, prompts) }));
  }
  return splits.map((split) => ({
    name: split.task.name,
    run: async (_, { signal, onProgress }) => {
      const found: ModalityHeads[] = [];
      const examples = vectorExamples(split, { shots, count: prompts, readPosition: 'dummy-query' });
      let heads: readonly Head[] = [];
      for (const [i, spec] of MODALITIES.entries()) {
        const { effects, each } = await taskHeadEffects(context, split, {
          spec,
          shots,
          prompts,
          corrupt: prompts,
          template,
          signal,
          onProgress: ({ done, total }) => onProgress((i + (0.8 * done) / total) / MODALITIES.length),
        });
        heads = effects.heads;
        const cut = await knockOut(context, examples, { spec, format, signal });
        found.push({ modality: spec, effects: each.map(({ values }) => [...values]), ...cut });
      }
      const { name: task, domain } = split.task;
      return { task, domain, items: examples.map(({ query }) => query.input), heads, modalities: found };
    },
  }));
};

const EXAMPLES = 'examples';

/** The prompt of examples and a query, and where the query begins. */
export async function promptWithQuery(
  model: Model,
  parts: readonly PromptPart[],
  query: readonly PromptPart[],
  signal: AbortSignal | undefined,
): Promise<{ prompt: Prompt; end: number }> {
  if (isDeepStrictEqual(parts.slice(-query.length), query)) {
    const prompt = await model.prompt(parts.toSpliced(-query.length, 0, { mark: EXAMPLES }), { signal });
    return { prompt, end: prompt.position(EXAMPLES) };
  }
  // Turns of a chat are one text.
  const prompt = await model.prompt(parts, { signal });
  const { tokens } = await model.prompt(query, { signal });
  let same = 0;
  while (same < tokens.length && tokens.at(-1 - same) === prompt.tokens.at(-1 - same)) same++;
  return { prompt, end: prompt.length - same - 1 };
}

/** Probabilities of the answer to picture queries, with all edges and without some of one layer. */
async function knockOut(
  context: Context,
  prompts: readonly VectorExamples[],
  { spec, format, signal }: { spec: Modality; format: PromptFormat; signal: AbortSignal | undefined },
): Promise<Omit<ModalityHeads, 'modality' | 'effects'>> {
  const { model } = context;
  const layers = Array.from({ length: model.info.nLayers }, (_, layer) => layer);
  const plain: number[] = [];
  const [withoutPicture, withoutExamples] = [layers.map((): number[] => []), layers.map((): number[] => [])];
  for (const { whole: shots, query } of prompts) {
    const asked = { query, queryModality: 'image' } as const;
    const parts = format.write({ ...asked, shots, shotModality: spec });
    const [answer] = await answerTokens(model, parts, format, [query.output]);
    if (answer === undefined) continue;
    requireApart(answer, parts, query.output);
    const metric = tokenProbability(answer.tokens[answer.first] as number);
    const { prompt: whole, end } = await promptWithQuery(model, parts, format.write(asked), signal);
    const lead = answer.tokens.slice(0, answer.first);
    const { prompt, measure } = await measured(context, whole.append(lead), metric, signal);
    const picture = prompt.pictures.filter(({ first }) => first > end);
    const seen = picture.flatMap(({ first, nRows }) => Array.from({ length: nRows }, (_, row) => first + row));
    // Every token may be looking at the first one, BOS or not, whatever the examples are.
    const examples = { from: 1, to: end };
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
