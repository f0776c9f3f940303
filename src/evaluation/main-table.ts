import { XpatchError } from '../errors.js';
import type { Context, GenerateRow, PassOptions, PromptPart } from '../model/index.js';
import { baselineShots, fewShotPrompt, type Modality, queryPrompt } from '../tasks/prompts.js';
import { splitTask, type TaskSplit } from '../tasks/split.js';
import { loadTask, type TaskItem } from '../tasks/task.js';
import { type PromptRecord, recordPrompt } from '../vectors/prompt-record.js';
import type { TaskSpec, TaskVector } from '../vectors/task-vector.js';
import { extractTaskVector } from './extract.js';
import { lenientMatch, majorityAnswer, strictMatch } from './scoring.js';
import type { ScoredQuery } from './tables.js';

/** How an answer was got: the rows of the main table. `Text` and `Image` name the modality of the examples. */
export const CONDITIONS = [
  'Random',
  'No Context',
  'Image Prompt',
  'Image Patch',
  'Text Prompt',
  'Text Patch',
  'Instruction Patch',
  'Random Vector Patch',
  'Wrong Task Patch',
] as const;
export type Condition = (typeof CONDITIONS)[number];

/** Conditions that write the task's own vector, and the examples that the vector comes from. */
const OWN_VECTOR = { 'Image Patch': 'image', 'Text Patch': 'text', 'Instruction Patch': 'instruction' } as const;
type PatchCondition = keyof typeof OWN_VECTOR;
const PROMPTS = { 'Image Prompt': 'image', 'Text Prompt': 'text' } as const;
type PromptCondition = keyof typeof PROMPTS;

export interface MainTableOptions {
  /** Names of shipped tasks, in order. */
  tasks: readonly string[];
  seeds: readonly number[];
  /** What the queries are. With `text` the image conditions are left out. */
  queries: Modality;
  /** Drawing style of the pictures. */
  style: string;
  /** Examples in a prompt. */
  shots: number;
  /** Validation items a task and seed: vectors and the layer come from them. */
  validation: number;
  /** Largest number of test queries a task and seed. */
  test: number;
  /** Length of an answer; the lenient score reads its first token only. */
  maxTokens: number;
}

/** The paper's sizes. */
export const MAIN_TABLE_DEFAULTS = {
  seeds: [1, 2, 3],
  style: 'twemoji',
  shots: 5,
  validation: 30,
  test: 100,
  maxTokens: 16,
} as const;

/** One answered query, with what is needed to ask it again. */
export interface AnsweredQuery extends ScoredQuery {
  condition: Condition;
  expected: string;
  /** Greedy answer up to the first line break. */
  answer: string;
  firstToken: string;
  /** Layer of the patch and file name of its vector; absent where nothing was patched. */
  layer?: number;
  vector?: string;
  /** The prompt as the model saw it; absent for the Random row. */
  prompt?: PromptRecord;
}

/** Share of validation queries that a patch at a layer answers (lenient score). */
export interface SweepCell {
  condition: PatchCondition;
  task: string;
  seed: number;
  layer: number;
  n: number;
  correct: number;
}

/** The same for prompts, which have no layer. */
export type PromptCell = Omit<SweepCell, 'condition' | 'layer'> & { condition: PromptCondition };

export interface MainTableResult {
  /** Chosen on validation items: highest mean of the patch conditions over tasks and seeds, ties to the lowest. */
  layer: number;
  sweep: SweepCell[];
  prompts: PromptCell[];
}

export interface MainTableEvents {
  signal?: AbortSignal;
  /** Queries done of all, and what is being done. */
  onProgress?: (progress: { done: number; total: number; stage: string }) => void;
  /** Called once for every vector, with the file name that results name it by. */
  onVector?: (name: string, vector: TaskVector) => Promise<void>;
  /** Called with the answers of each task and seed as soon as they are there. */
  onAnswers?: (answers: AnsweredQuery[]) => Promise<void>;
}

/** One task under one seed. */
interface Cell {
  split: TaskSplit;
  vectors: Map<TaskSpec, TaskVector>;
}

/**
 * The paper's main experiment (Luo, Darrell and Bar 2024, table 1) with its controls: vectors from validation items, the
 * layer from validation items, then every condition on the same test queries.
 *
 * @throws XpatchError TASK_INVALID when a task has too few items; otherwise as `Context.pass`.
 */
export async function runMainTable(
  context: Context,
  options: MainTableOptions,
  events: MainTableEvents = {},
): Promise<MainTableResult> {
  const images = options.queries === 'image';
  if (images && !context.model.hasVision) {
    throw new XpatchError(
      'IMAGE_UNSUPPORTED',
      'Image queries need a model with a picture encoder: give --mmproj, or ask text queries.',
    );
  }
  if (new Set(options.tasks).size < 2) {
    throw new XpatchError('INVALID_ARGUMENT', 'The wrong-task control needs at least two tasks. Name two or more.');
  }
  const patches = (Object.keys(OWN_VECTOR) as PatchCondition[]).filter((c) => images || c !== 'Image Patch');
  const promptConditions = (Object.keys(PROMPTS) as PromptCondition[]).filter((c) => images || c !== 'Image Prompt');
  const cells = await loadCells(options, images);
  const nLayers = context.model.info.nLayers;

  let done = 0;
  const sizes = cells.map(({ split }) => ({ validation: split.validation.length, test: split.test.length }));
  const perQuery = 1 + patches.length + promptConditions.length + 2;
  const total = sizes.reduce(
    (n, { validation, test }) =>
      n + validation * (patches.length + patches.length * nLayers + promptConditions.length) + test * perQuery,
    0,
  );
  /** Runs a part of the work that stands for `n` answers. */
  const part = async <T>(n: number, stage: string, work: (how: PassOptions) => Promise<T>): Promise<T> => {
    const report = (share: number) => events.onProgress?.({ done: Math.round(done + n * share), total, stage });
    report(0);
    const result = await work({ signal: events.signal, onProgress: (p) => report(p.done / p.total) });
    done += n;
    report(0);
    return result;
  };

  const sweep: SweepCell[] = [];
  const prompts: PromptCell[] = [];
  for (const cell of cells) {
    const { split } = cell;
    const where = `${split.task.name}, seed ${split.seed}`;
    const n = split.validation.length;
    for (const condition of patches) {
      const spec = OWN_VECTOR[condition];
      const vector = await part(n, `${spec} vector (${where})`, (how) =>
        extractTaskVector(context, split, {
          spec,
          shots: options.shots,
          signal: how.signal,
          onProgress: (p) => p.stage === 'pass' && how.onProgress?.(p), // building the prompts takes far less
        }),
      );
      cell.vectors.set(spec, vector);
      await events.onVector?.(vectorName(split, spec), vector);
    }
    const swept = await part(n * patches.length * nLayers, `layers (${where})`, (how) =>
      sweepValidation(context, cell, patches, options, how),
    );
    sweep.push(...swept);
    const prompted = await part(n * promptConditions.length, `validation prompts (${where})`, (how) =>
      promptValidation(context, split, promptConditions, options, how),
    );
    prompts.push(...prompted);
  }
  const layer = chooseLayer(sweep, nLayers);

  for (const [i, cell] of cells.entries()) {
    const { split } = cell;
    const wrong = wrongTask(cells, i);
    const random = (cell.vectors.get('text') as TaskVector).normMatchedRandom(split.seed);
    await events.onVector?.(vectorName(split, 'random'), random);
    const plan = { layer, patches, promptConditions, wrong, random };
    const where = `${split.task.name}, seed ${split.seed}`;
    const answers = await part(split.test.length * perQuery, `test queries (${where})`, (how) =>
      answerTest(context, cell, plan, options, how),
    );
    await events.onAnswers?.(answers);
  }
  return { layer, sweep, prompts };
}

async function loadCells(options: MainTableOptions, pictures: boolean): Promise<Cell[]> {
  const cells: Cell[] = [];
  for (const seed of options.seeds) {
    for (const name of options.tasks) {
      const task = await loadTask(name, { pictures, style: options.style });
      const split = splitTask(task, seed, { pictures, validation: options.validation, test: options.test });
      if (split.test.length === 0) {
        throw new XpatchError(
          'TASK_INVALID',
          `${name} has no items left for testing after ${options.validation} for validation. Ask for fewer.`,
        );
      }
      cells.push({ split, vectors: new Map() });
    }
  }
  return cells;
}

/** Every layer of every vector on every validation query: one prefill a query, one batch of last tokens for all else. */
async function sweepValidation(
  context: Context,
  { split, vectors }: Cell,
  patches: readonly PatchCondition[],
  options: MainTableOptions,
  how: PassOptions,
): Promise<SweepCell[]> {
  const layers = Array.from({ length: context.model.info.nLayers }, (_, i) => i);
  const plan = patches.flatMap((condition) => layers.map((layer) => ({ condition, layer })));
  const interventions = plan.map(({ condition, layer }) => [
    (vectors.get(OWN_VECTOR[condition]) as TaskVector).toIntervention(layer, { position: 'delimiter' }),
  ]);
  const rows = [];
  for (const item of split.validation) {
    const prompt = await context.model.prompt(queryPrompt(item, options.queries), how);
    for (const edits of interventions) rows.push({ prompt, interventions: edits, topK: 1 });
  }
  const results = await context.pass(rows, how);
  return plan.map(({ condition, layer }, p) => ({
    condition,
    layer,
    task: split.task.name,
    seed: split.seed,
    n: split.validation.length,
    correct: split.validation.filter((item, i) => {
      const first = results[i * plan.length + p]?.top?.[0]?.text ?? '';
      return lenientMatch(first, item.output);
    }).length,
  }));
}

/** The Prompt baselines on validation queries, their shots from the other validation items: the dotted lines of the sweep. */
async function promptValidation(
  context: Context,
  split: TaskSplit,
  conditions: readonly PromptCondition[],
  options: MainTableOptions,
  how: PassOptions,
): Promise<PromptCell[]> {
  const asTest = { ...split, test: split.validation };
  const plan = conditions.flatMap((condition) => split.validation.map((item) => ({ condition, item })));
  const rows = [];
  for (const { condition, item } of plan) {
    const shots = baselineShots(asTest, item, options.shots);
    const parts = fewShotPrompt(shots, PROMPTS[condition], item, options.queries);
    rows.push({ prompt: await context.model.prompt(parts, how), topK: 1 });
  }
  const results = await context.pass(rows, how);
  const correct = plan.map(({ item }, i) => lenientMatch(results[i]?.top?.[0]?.text ?? '', item.output));
  return conditions.map((condition) => ({
    condition,
    task: split.task.name,
    seed: split.seed,
    n: split.validation.length,
    correct: plan.filter((entry, i) => entry.condition === condition && correct[i]).length,
  }));
}

function chooseLayer(sweep: readonly SweepCell[], nLayers: number): number {
  const means = Array.from({ length: nLayers }, (_, layer) => {
    const cells = sweep.filter((cell) => cell.layer === layer);
    return cells.reduce((sum, cell) => sum + cell.correct / cell.n, 0) / cells.length;
  });
  return means.indexOf(Math.max(...means));
}

/** The text vector of the next task in the list, same seed: half of these are of the query's own domain. */
function wrongTask(cells: readonly Cell[], index: number): { name: string; vector: TaskVector } {
  const { split } = cells[index] as Cell;
  const sameSeed = cells.filter((cell) => cell.split.seed === split.seed);
  const next = sameSeed[(sameSeed.indexOf(cells[index] as Cell) + 1) % sameSeed.length] as Cell;
  return { name: vectorName(next.split, 'text'), vector: next.vectors.get('text') as TaskVector };
}

interface TestPlan {
  layer: number;
  patches: readonly PatchCondition[];
  promptConditions: readonly PromptCondition[];
  wrong: { name: string; vector: TaskVector };
  random: TaskVector;
}

async function answerTest(
  context: Context,
  { split, vectors }: Cell,
  plan: TestPlan,
  options: MainTableOptions,
  how: PassOptions,
): Promise<AnsweredQuery[]> {
  const edits: { condition: Condition; vector: string; intervention: ReturnType<TaskVector['toIntervention']> }[] = [];
  const patch = (condition: Condition, name: string, vector: TaskVector) =>
    edits.push({ condition, vector: name, intervention: vector.toIntervention(plan.layer, { position: 'delimiter' }) });
  for (const condition of plan.patches) {
    const spec = OWN_VECTOR[condition];
    patch(condition, vectorName(split, spec), vectors.get(spec) as TaskVector);
  }
  patch('Random Vector Patch', vectorName(split, 'random'), plan.random);
  patch('Wrong Task Patch', plan.wrong.name, plan.wrong.vector);

  const rows: GenerateRow[] = [];
  const asked: (Pick<AnsweredQuery, 'condition' | 'vector' | 'layer' | 'prompt'> & { item: TaskItem })[] = [];
  const ask = async (
    item: TaskItem,
    condition: Condition,
    parts: readonly PromptPart[],
    edit?: (typeof edits)[number],
  ) => {
    const prompt = await context.model.prompt(parts, how);
    rows.push({ prompt, interventions: edit ? [edit.intervention] : [] });
    const record = recordPrompt(parts, prompt.tokens);
    asked.push({ item, condition, prompt: record, ...(edit && { vector: edit.vector, layer: plan.layer }) });
  };
  for (const item of split.test) {
    const bare = queryPrompt(item, options.queries);
    await ask(item, 'No Context', bare);
    for (const edit of edits) await ask(item, edit.condition, bare, edit);
    const shots = baselineShots(split, item, options.shots);
    for (const condition of plan.promptConditions) {
      await ask(item, condition, fewShotPrompt(shots, PROMPTS[condition], item, options.queries));
    }
  }

  const generations = await context.generate(rows, { maxTokens: options.maxTokens, stop: ['\n'], ...how });
  const score = (item: TaskItem, condition: Condition, answer: string, firstToken: string, whole: boolean) => ({
    condition,
    task: split.task.name,
    domain: split.task.domain,
    seed: split.seed,
    item: item.input,
    expected: item.output,
    answer,
    firstToken,
    lenient: lenientMatch(firstToken, item.output),
    strict: whole && strictMatch(answer, item.output),
  });
  const answers: AnsweredQuery[] = generations.map(({ text, tokens, finish }, i) => {
    const { item, condition, ...how } = asked[i] as (typeof asked)[number];
    const firstToken = tokens.length ? context.model.detokenize(tokens.slice(0, 1)) : '';
    // An answer that was cut off is not a whole one.
    return { ...score(item, condition, text, firstToken, finish !== 'length'), ...how };
  });
  const majority = majorityAnswer(split.validation) ?? '';
  for (const item of split.test) answers.push(score(item, 'Random', majority, majority, true));
  return answers;
}

function vectorName(split: TaskSplit, spec: TaskSpec | 'random'): string {
  return `${split.task.name}.${spec}.seed${split.seed}`;
}
