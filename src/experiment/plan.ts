import { HookPoints } from '../hooks/points.js';
import type { Model } from '../model/model.js';
import { prepareRow } from '../model/pass.js';
import { PrefixTree } from '../model/prefix-tree.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt, Segment } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { answerTokens, requireApart } from '../tasks/answer-tokens.js';
import { choicesOf, rightAnswers } from '../tasks/answers.js';
import { checkTask } from '../tasks/check.js';
import type { Modality } from '../tasks/prompts.js';
import type { Task, TaskItem } from '../tasks/task.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { batchesOf } from './batches.js';
import { corruptOf } from './read-vector.js';
import { membersOf, type Shard } from './shard.js';
import { type Cell, conditionsOf, groupByPrompt, prepareStudy, type Study, usesPictures } from './study.js';
import type { Condition, Experiment, Plan, QueryKey } from './types.js';
import { promptsOf, sourcesOf, vectorsOf, type WantedVector } from './vectors.js';

/** Which part of an experiment to plan, and for which context. */
export interface PlanOptions {
  /** The model of `foreign` conditions. */
  foreign?: Model;
  /** Plan only this shard. Defaults to all queries. */
  shard?: Shard;
  /** Positions that the run's context will hold, to refuse prompts that do not fit. Defaults to no bound. */
  nCtx?: number;
  signal?: AbortSignal;
  /** Fraction of the tasks checked: their pictures are examined, one by one, before prompts are counted. */
  onProgress?: OnProgress;
}

/**
 * What an experiment would do, and whether it can: every prompt is built as in the run and counted, but nothing is encoded or
 * decoded.
 *
 * @throws {XpatchError} what `prepareStudy` throws; TASK_INVALID for a task with errors that `checkTask` finds in the splits of the
 *   experiment, and when all answers of a task begin with the same token; MARK_AMBIGUOUS when the tokenizer merges what a template keeps apart; CONTEXT_OVERFLOW for a prompt longer than `nCtx`;
 *   ABORTED
 */
export async function planExperiment(model: Model, experiment: Experiment, options: PlanOptions = {}): Promise<Plan> {
  const study = await prepareStudy(model, experiment, options.foreign);
  await checkData(experiment, options);
  const pace = new Pace(options.signal);
  const { warnings, laterFirst } = await checkAnswers(model, study, pace);
  const counter = new Counter(model, pace);
  const isMember = membersOf(options.shard, study, model.info.nLayers);
  const vectors = vectorsOf(study, isMember);
  await countVectors(study, vectors, counter, model.info.nLayers * Math.ceil(model.info.nEmbd / HEAD_SIZE));
  const work = { vectors: counter.tokens, validation: 0, test: 0 };
  const queries: { stage: QueryKey['stage']; condition: string; count: number }[] = [];
  let newTokens = 0;
  for (const stage of ['validation', 'test'] as const) {
    const conditions = conditionsOf(study, stage);
    if (conditions.length === 0 || (stage === 'test' && options.shard?.stage === 'validation')) continue;
    // If validation has to choose, there will be one layer.
    const common = stage === 'validation' ? model.info.nLayers : (study.layers?.length ?? 1);
    const nLayers = ({ layers }: Condition) => layers?.length ?? common;
    let nItems = 0;
    const before = counter.tokens;
    for (const cell of study.cells) {
      const { task, seed } = cell.split;
      for (const items of batchesOf(study, cell, stage, model.info.nLayers)) {
        if (!items.every(({ input: item }) => isMember({ stage, task: task.name, seed, item }))) continue;
        nItems += items.length;
        await countBatch(study, { cell, stage, conditions, nLayers, items }, counter, laterFirst);
      }
    }
    for (const condition of conditions) {
      const { name, kind } = condition;
      const count = nItems * (kind === 'patch' ? nLayers(condition) : 1);
      queries.push({ stage, condition: name, count });
      if (stage === 'test' && kind !== 'majority') newTokens += count * experiment.maxTokens;
    }
    work[stage] = counter.tokens - before + (stage === 'test' ? newTokens / 4 : 0);
  }
  const more = newTokensOf(study, model);
  const longest = counter.longest + more;
  if (options.nCtx !== undefined && longest > options.nCtx) {
    const message = `The longest prompt has ${counted(counter.longest, 'position')} and ${counted(more, 'new token')}`;
    throw new XpatchError(
      'CONTEXT_OVERFLOW',
      `${message}, but the context holds ${options.nCtx}. Raise --n-ctx, or ask for fewer shots.`,
    );
  }
  const { passes, tokens, pictures } = counter;
  return {
    model: model.identity,
    queries,
    vectors: vectors.length,
    pictures: pictures.size,
    passes,
    tokens,
    newTokens,
    work,
    longest,
    warnings,
  };
}

/** The most tokens that follow a prompt: generated ones, or those of an answer whose likelihood is asked for. */
function newTokensOf({ experiment, cells }: Study, model: Model): number {
  const { maxTokens, scores } = experiment;
  if (!scores.includes('likelihood')) return maxTokens;
  const answers = new Set(
    cells.flatMap(({ split: { task, test } }) => test.flatMap((item) => choicesOf(item, task.items))),
  );
  // After a prompt, an answer may have a token more than alone; its last one is not decoded.
  return [...answers].reduce((most, answer) => Math.max(most, model.tokenize(answer).length), maxTokens);
}

/** Numbers of a head, in most models. */
const HEAD_SIZE = 64;

async function countVectors(study: Study, vectors: readonly WantedVector[], counter: Counter, nHeads: number) {
  for (const vector of vectors) {
    if (sourcesOf(study, vector).length > 0) continue;
    const prompts = promptsOf(study, vector);
    await counter.add(prompts);
    if (vector.vector !== 'function') continue;
    // A prompt of shuffled labels is as long, and has a last token more for every head.
    const corrupt = await counter.add(prompts.slice(0, corruptOf(prompts.length)));
    counter.tokens += corrupt.length * nHeads;
  }
}

interface AskedBatch {
  readonly cell: Cell;
  readonly stage: QueryKey['stage'];
  readonly conditions: readonly Condition[];
  readonly nLayers: (condition: Condition) => number;
  readonly items: readonly TaskItem[];
}

/** Distinct prompts once, plus a last token for every patch of one. */
async function countBatch(study: Study, asked: AskedBatch, counter: Counter, laterFirst: LaterFirst): Promise<void> {
  const { cell, stage, conditions, nLayers, items } = asked;
  const groups = items.flatMap((item) =>
    groupByPrompt(study, cell, stage, conditions, item).map((group) => ({ ...group, item })),
  );
  const prompts = await counter.add(groups.map(({ parts }) => parts));
  const scores = stage === 'test' ? study.experiment.scores : [];
  const ledBy = (item: TaskItem) =>
    scores.includes('probability') ? rightAnswers(item).reduce((sum, one) => sum + (laterFirst.get(one) ?? 0), 0) : 0;
  const readsOwn = ({ control }: Condition) => control === 'identity';
  if (groups.length > 0) counter.passes += (scores.includes('likelihood') ? 1 : 0) + (items.some(ledBy) ? 1 : 0);
  if (groups.some((group) => group.conditions.some(readsOwn))) counter.passes += 1;
  for (const [i, { item, conditions: members }] of groups.entries()) {
    const led = ledBy(item);
    const { length } = prompts[i] as Prompt;
    const patches = members.filter(({ kind }) => kind === 'patch');
    const rows = patches.reduce((n, condition) => n + nLayers(condition), 0);
    counter.tokens += rows - (patches.length === members.length ? 1 : 0);
    // A separate pass reads the states that are written back; all but the position that it reads stays in the cache.
    if (patches.some(readsOwn)) counter.tokens += 1;
    // What comes before the first token of an answer is read in a separate pass.
    if (led > 0) counter.tokens += length + (rows + members.length - patches.length) * led;
    if (scores.includes('likelihood')) {
      // Beginnings of answers branch off the query: at least that much more.
      const answers = choicesOf(item, cell.split.task.items).length;
      counter.tokens += length + (rows + members.length - patches.length) * answers;
    }
  }
}

/** Builds prompts as the model would see them, and counts positions. */
class Counter {
  passes = 0;
  tokens = 0;
  longest = 0;
  /** Only the prompt itself is measured: nothing is hooked, and there is no context. */
  private readonly points = new HookPoints([], '', undefined);
  /** How each picture is laid out in a prompt. */
  readonly pictures = new Map<string, Segment[]>();

  constructor(
    private readonly model: Model,
    private readonly pace: Pace,
  ) {}

  /** Prompts of one pass: their common beginning counts once. */
  async add(prompts: readonly (readonly PromptPart[])[]): Promise<Prompt[]> {
    if (this.pace.due()) await this.pace.rest();
    const tree = new PrefixTree();
    const built: Prompt[] = [];
    for (const parts of prompts) {
      const prompt = await this.build(parts);
      const { info, identity } = this.model;
      tree.add(prepareRow({ prompt }, { ...info, identity, points: this.points, deviation: 0 }));
      this.longest = Math.max(this.longest, prompt.length);
      built.push(prompt);
    }
    this.tokens += tree.cells;
    if (built.length > 0) this.passes += 1;
    return built;
  }

  private build(parts: readonly PromptPart[]): Promise<Prompt> {
    return this.model.assemble(parts, (image) => this.stand(String(image)));
  }

  /** Segments as long as those of a picture. Keys say which picture it is, so equal ones are shared. */
  private async stand(path: string): Promise<Segment[]> {
    const layout = this.pictures.get(path) ?? (await this.model.layoutOf(path));
    this.pictures.set(path, layout);
    return layout.map((part) => (part.kind === 'image' ? { ...part, key: `${path}\n${part.key}` } : part));
  }
}

/** Where a split is made, more is known about how many items it needs. @throws {XpatchError} TASK_INVALID, in the words of `data check` */
async function checkData(experiment: Experiment, { signal, onProgress }: PlanOptions): Promise<void> {
  const { tasks, style, seeds, validation, test } = experiment;
  const splits = { style, seeds, validation, test, pictures: usesPictures(experiment) };
  for (const [i, source] of tasks.entries()) {
    const { name, file, findings } = await checkTask(source, {
      ...splits,
      ...(signal && { signal }),
      onProgress: ({ done, total }) => onProgress?.({ done: i + done / total, total: tasks.length }),
    });
    const [first, ...more] = findings.filter(({ level, kind }) => level === 'error' && kind !== 'too-few-items');
    if (!first) continue;
    const others = more.length > 0 ? `, and ${more.length} more` : '';
    throw new XpatchError(
      'TASK_INVALID',
      `Task ${name}: ${first.kind}: ${first.message}${others}. Fix ${file} (\`xpatch data check\` lists all problems), or leave out the task.`,
    );
  }
}

/** By answer, how many tokens of the template or the tokenizer come before its first one, if any. */
type LaterFirst = ReadonlyMap<string, number>;

/**
 * @returns warnings: for a template whose queries and examples do not match, and for each task some of whose answers begin alike
 * @throws {XpatchError} TASK_INVALID if all of them do: the lenient score could not tell right from wrong; MARK_AMBIGUOUS if
 *   answers to be scored have tokens that cannot be separated from the query's; ABORTED
 */
async function checkAnswers(model: Model, study: Study, pace: Pace) {
  const { cells, experiment, format } = study;
  const warnings: string[] = [];
  const laterFirst = new Map<string, number>();
  const modalities = modalitiesOf(experiment);
  if (!format.continues && modalities.length > 0) warnings.push(NO_CONTINUATION);
  for (const { task, test } of new Map(cells.map(({ split }) => [split.task.name, split])).values()) {
    if (modalities.length > 0) {
      const found = await beginnings(model, study, task, modalities, pace);
      warnings.push(...found.warnings);
      for (const [output, first] of found.laterFirst) laterFirst.set(output, first);
    }
    if (test.length < experiment.test) {
      warnings.push(`Task ${task.name} has ${test.length} test items, fewer than the ${experiment.test} asked for.`);
    }
  }
  return { warnings, laterFirst };
}

const NO_CONTINUATION =
  "The template's examples do not continue from where its query ends, so queries ask for what no example shows. Give both the same text between {input} and {output}, as far as the query goes.";

/** The model's queries; none if it answers none. */
function modalitiesOf({ conditions, query }: Experiment): Modality[] {
  const asked = conditions.filter(({ kind }) => kind !== 'majority');
  return [...new Set(asked.map((condition) => condition.query ?? query))];
}

/** How the answers of a task begin after its queries, and what to say about it. @throws {XpatchError} as `checkAnswers` */
async function beginnings(
  model: Model,
  { format, experiment }: Study,
  task: Task,
  modalities: readonly Modality[],
  pace: Pace,
) {
  const warnings: string[] = [];
  const laterFirst = new Map<string, number>();
  const byToken = new Map<number, Set<string>>();
  const joined: string[] = [];
  let asked = 0;
  for (const queryModality of modalities) {
    for (const item of task.items.filter(({ image }) => queryModality === 'text' || image !== undefined)) {
      if (pace.due()) await pace.rest();
      const outputs = rightAnswers(item);
      const query = format.write({ query: item, queryModality });
      const answers = await answerTokens(model, query, format, outputs);
      const [output, answer] = [item.output, answers[0]];
      if (!answer) continue;
      asked += 1;
      for (const [i, one] of answers.entries()) {
        if (experiment.scores.length > 0) requireApart(one, query, outputs[i] as string);
        if (one.first > 0) laterFirst.set(outputs[i] as string, one.first);
      }
      if (answer.merged) joined.push(output);
      const first = answer.tokens[answer.first];
      if (first !== undefined) byToken.set(first, (byToken.get(first) ?? new Set()).add(output));
    }
  }
  if (byToken.size === 1) {
    const token = JSON.stringify(model.detokenize([...byToken.keys()]));
    const message = `All answers of task ${task.name} begin with the token ${token}, so the lenient score cannot tell them apart`;
    throw new XpatchError('TASK_INVALID', `${message}. Change the answers, or leave out the task.`);
  }
  if (joined.length > 0) {
    warnings.push(
      `The tokenizer joins the end of ${joined.length} of ${asked} queries of task ${task.name} with the answer, such as ${JSON.stringify(joined[0])}: examples show a token there that no answer can begin with. If the query ends in a space, end it before the space.`,
    );
  }
  const alike = [...byToken].filter(([, answers]) => answers.size > 1);
  const count = alike.reduce((n, [, answers]) => n + answers.size, 0);
  if (count > 0) {
    const [token, answers] = alike.sort(([, a], [, b]) => b.size - a.size)[0] as [number, Set<string>];
    const shown = [...answers].slice(0, 3).join(', ');
    warnings.push(
      `${count} answers of task ${task.name} share their first token with another, such as ${JSON.stringify(model.detokenize([token]))} of ${shown}: the lenient score may take one for the other.`,
    );
  }
  return { warnings, laterFirst };
}
