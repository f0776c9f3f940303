import { setImmediate } from 'node:timers/promises';
import type { Model } from '../model/model.js';
import { prepareRow } from '../model/pass.js';
import { PrefixTree } from '../model/prefix-tree.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt, Segment } from '../prompt/prompt.js';
import { buildPrompt } from '../prompt/prompt-builder.js';
import type { PromptPart } from '../prompt/types.js';
import { checkTask } from '../tasks/check.js';
import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { answerTokens } from './scores.js';
import { inShard, type Shard } from './shard.js';
import { type Cell, conditionsOf, groupByPrompt, itemsOf, prepareStudy, type Study, usesPictures } from './study.js';
import type { Condition, Experiment, Plan, QueryKey } from './types.js';
import { promptsOf, sourcesOf, vectorsOf } from './vectors.js';

export interface PlanOptions {
  /** The model of `foreign` conditions. */
  foreign?: Model;
  /** Plan this shard only. Defaults to all queries. */
  shard?: Shard;
  /** Cells of the context that the run will have, to refuse prompts that do not fit. Defaults to no bound. */
  nCtx?: number;
  signal?: AbortSignal;
  /** Tasks checked of all, in parts: their pictures are looked at, one by one, before prompts are counted. */
  onProgress?: OnProgress;
}

/**
 * What an experiment would do, and whether it can: every prompt is built and counted, and nothing is decoded. One picture is
 * encoded to learn how many positions pictures take; models whose pictures differ in that are estimated.
 *
 * @throws {XpatchError} what `prepareStudy` throws; TASK_INVALID for a task with errors that `checkTask` finds in the splits of the
 *   experiment, and when all answers of a task begin with the same token; MARK_AMBIGUOUS when the tokenizer merges what a template keeps apart; CONTEXT_OVERFLOW for a prompt longer than `nCtx`;
 *   ABORTED
 */
export async function planExperiment(model: Model, experiment: Experiment, options: PlanOptions = {}): Promise<Plan> {
  const study = await prepareStudy(model, experiment, options.foreign);
  await checkData(experiment, options);
  const warnings = checkAnswers(model, study);
  const counter = new Counter(model, options.signal);
  const vectors = await countVectors(study, counter);
  const work = { vectors: counter.tokens, validation: 0, test: 0 };
  const queries: { stage: QueryKey['stage']; condition: string; count: number }[] = [];
  let newTokens = 0;
  for (const stage of ['validation', 'test'] as const) {
    const conditions = conditionsOf(study, stage);
    if (conditions.length === 0) continue;
    // Where validation has to choose there will be one layer.
    const nLayers = stage === 'validation' ? model.info.nLayers : (study.layers?.length ?? 1);
    let nItems = 0;
    const before = counter.tokens;
    for (const cell of study.cells) {
      const items = itemsOf(cell, stage).filter(
        ({ input }) => !options.shard || inShard(options.shard, { stage, item: input }),
      );
      nItems += items.length;
      for (const item of items) await countItem(study, { cell, stage, conditions, nLayers, item }, counter);
    }
    for (const { name, kind } of conditions) {
      const count = nItems * (kind === 'patch' ? nLayers : 1);
      queries.push({ stage, condition: name, count });
      if (stage === 'test' && kind !== 'majority') newTokens += count * experiment.maxTokens;
    }
    work[stage] = counter.tokens - before + (stage === 'test' ? newTokens / 4 : 0);
  }
  const longest = counter.longest + experiment.maxTokens;
  if (options.nCtx !== undefined && longest > options.nCtx) {
    const message = `The longest prompt has ${counter.longest} positions and ${experiment.maxTokens} new tokens`;
    throw new XpatchError(
      'CONTEXT_OVERFLOW',
      `${message}, the context ${options.nCtx}. Raise --n-ctx, or ask for fewer shots.`,
    );
  }
  const { passes, tokens, pictures } = counter;
  return {
    model: model.identity,
    queries,
    vectors,
    pictures: pictures.size,
    passes,
    tokens,
    newTokens,
    work,
    longest,
    warnings,
  };
}

async function countVectors(study: Study, counter: Counter): Promise<number> {
  const vectors = vectorsOf(study);
  for (const vector of vectors) {
    if (sourcesOf(study, vector).length === 0) await counter.add(promptsOf(study, vector));
  }
  return vectors.length;
}

interface AskedItem {
  readonly cell: Cell;
  readonly stage: QueryKey['stage'];
  readonly conditions: readonly Condition[];
  readonly nLayers: number;
  readonly item: TaskItem;
}

/** Distinct prompts once, and a last token more for every patch of one. */
async function countItem(study: Study, asked: AskedItem, counter: Counter): Promise<void> {
  const { cell, stage, conditions, nLayers, item } = asked;
  const groups = groupByPrompt(study, cell, stage, conditions, item);
  const prompts = await counter.add(groups.map(({ parts }) => parts));
  if (stage === 'test' && groups.length > 0 && study.experiment.scores.includes('likelihood')) counter.passes += 1;
  for (const [i, { conditions: members }] of groups.entries()) {
    const { length } = prompts[i] as Prompt;
    const patches = members.filter(({ kind }) => kind === 'patch');
    const rows = patches.length * nLayers;
    counter.tokens += rows - (patches.length === members.length ? 1 : 0);
    // A pass of its own reads the states that are written back; all but the position that it reads stays in the cache.
    if (patches.some(({ control }) => control === 'identity')) {
      counter.tokens += 1;
      counter.passes += 1;
    }
    if (stage === 'test' && study.experiment.scores.includes('likelihood')) {
      // Beginnings of answers branch off the query: at least that much more.
      const answers = new Set(cell.split.task.items.map(({ output }) => output)).size;
      counter.tokens += length + (rows + members.length - patches.length) * answers;
    }
  }
}

/** Builds prompts as the model would see them, and counts positions. */
class Counter {
  passes = 0;
  tokens = 0;
  longest = 0;
  readonly pictures = new Set<string>();
  /** What a picture becomes in a prompt. */
  private sample: Segment[] | undefined;

  constructor(
    private readonly model: Model,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** Prompts that go through one pass: what they have in common from their start counts once. */
  async add(prompts: readonly (readonly PromptPart[])[]): Promise<Prompt[]> {
    await setImmediate(); // thousands of them
    if (this.signal?.aborted) throw new XpatchError('ABORTED', 'Planning was aborted.', { cause: this.signal.reason });
    const tree = new PrefixTree();
    const built: Prompt[] = [];
    for (const parts of prompts) {
      const prompt = await this.build(parts);
      tree.add(prepareRow({ prompt }, { ...this.model.info, identity: this.model.identity }));
      this.longest = Math.max(this.longest, prompt.length);
      built.push(prompt);
    }
    this.tokens += tree.cells;
    if (built.length > 0) this.passes += 1;
    return built;
  }

  private build(parts: readonly PromptPart[]): Promise<Prompt> {
    const { model } = this;
    const { hasTokenizer, addsBos, bosToken, nVocab } = model.info;
    return buildPrompt(parts, {
      tokenize: (text) => model.tokenize(text),
      describe: (token) => model.detokenize([token]),
      bos: hasTokenizer && addsBos ? bosToken : undefined,
      nVocab,
      encodeImage: (image) => this.stand(String(image)),
    });
  }

  /** Segments as long as those of a picture. Keys say which picture it is, so equal ones are shared. */
  private async stand(path: string): Promise<Segment[]> {
    this.pictures.add(path);
    this.sample ??= await this.encode(path);
    return this.sample.map((part) => (part.kind === 'image' ? { ...part, key: `${path}\n${part.key}` } : part));
  }

  private async encode(path: string): Promise<Segment[]> {
    const { segments } = await this.model.prompt([{ tokens: [] }, { image: path }], { signal: this.signal });
    return segments.filter((segment) => segment.kind === 'image' || segment.tokens.length > 0);
  }
}

/** How many items a split needs is known better where it is made. @throws {XpatchError} TASK_INVALID, in the words of `data check` */
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
      `Task ${name}: ${first.kind}: ${first.message}${others}. Mend ${file} (\`xpatch data check\` lists what it finds), or leave the task out.`,
    );
  }
}

/**
 * @returns a warning for each task some of whose answers begin alike
 * @throws {XpatchError} TASK_INVALID when all of them do: the lenient score could not tell right from wrong
 */
function checkAnswers(model: Model, { cells, experiment, format }: Study): string[] {
  const warnings: string[] = [];
  const tasks = new Map(cells.map(({ split }) => [split.task.name, split]));
  // A tokenizer may put a token of blanks in front of a text that stands alone.
  const firstAlone = (text: string) =>
    model.tokenize(text).find((token) => model.detokenize([token]).trim() !== '') as number;
  for (const { task, test } of tasks.values()) {
    const [query] = test;
    if (!query) continue;
    // How an answer is cut into tokens depends on what is right before it, which is the same after every query.
    const parts = format.write({ query: { ...query, input: 'x' }, queryModality: 'text' });
    const byToken = new Map<number, Set<string>>();
    for (const { output } of task.items) {
      const scored = experiment.scores.length > 0;
      const first = scored ? (answerTokens(model, parts, output)[0] as number) : firstAlone(output);
      byToken.set(first, (byToken.get(first) ?? new Set()).add(output));
    }
    const alike = [...byToken].filter(([, answers]) => answers.size > 1);
    const count = alike.reduce((n, [, answers]) => n + answers.size, 0);
    if (byToken.size === 1) {
      const token = JSON.stringify(model.detokenize([...byToken.keys()]));
      const message = `All answers of task ${task.name} begin with the token ${token}, so the lenient score cannot tell them apart`;
      throw new XpatchError('TASK_INVALID', `${message}. Change the answers, or leave the task out.`);
    }
    if (count > 0) {
      const [token, answers] = alike.sort(([, a], [, b]) => b.size - a.size)[0] as [number, Set<string>];
      const shown = [...answers].slice(0, 3).join(', ');
      warnings.push(
        `${count} answers of task ${task.name} share their first token with another one, such as ${JSON.stringify(model.detokenize([token]))} of ${shown}: the lenient score may take one for the other.`,
      );
    }
    if (test.length < experiment.test) {
      warnings.push(`Task ${task.name} has ${test.length} test items, fewer than the ${experiment.test} asked for.`);
    }
  }
  return warnings;
}
