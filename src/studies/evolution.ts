import { logitLens } from '../lens/logit-lens.js';
import type { Context, PassOptions } from '../model/context.js';
import { HiddenStates } from '../model/hidden-states.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptRecord } from '../prompt/prompt-record.js';
import { promptFormat } from '../tasks/model-format.js';
import type { PromptFormat } from '../tasks/prompt-format.js';
import { DELIMITER, type Modality, type VectorPrompt, vectorPrompts } from '../tasks/prompts.js';
import { splitTask } from '../tasks/split.js';
import { loadTask, type Task, type TaskItem } from '../tasks/task.js';
import {
  classOf,
  isAmbiguous,
  type TaskTokens,
  type Tokenizer,
  type TopClass,
  taskTokens,
  wordTokens,
} from '../tasks/token-classes.js';
import { XpatchError } from '../util/errors.js';
import {
  type Classes,
  checkClasses,
  EVOLUTION_CLASSES,
  type EvolutionClass,
  resolveClasses,
  type WordClass,
} from './evolution-classes.js';
import { requireModalities } from './modalities.js';
import { requireSeeds, runStudy, type Study, type StudyEvents, type TaskPromptOptions } from './study.js';

/** Which prompts are read through the layers. */
export interface EvolutionOptions extends TaskPromptOptions {
  modalities: readonly Modality[];
  /** Different prompts for each task, modality and seed. Defaults to 100. */
  prompts?: number;
  /** Defaults to `EVOLUTION_CLASSES`. */
  classes?: readonly (EvolutionClass | WordClass)[];
}

/** What the states of one prompt say, layer by layer from 0. */
export interface PromptReading {
  /** Seed that drew the prompt. */
  readonly seed: number;
  /** Input of the last example, and its answer. */
  readonly query: string;
  readonly expected: string;
  /** Highest logit among the tokens of each class, a number a layer. */
  readonly logits: Readonly<Record<string, readonly number[]>>;
  /** The best token of the whole vocabulary at each layer. */
  readonly top: readonly { readonly token: number; readonly text: string; readonly is: TopClass }[];
  /** Rank of the best token of the task word at each layer, 0 for the best of the vocabulary; absent without such a token. */
  readonly taskRank?: readonly number[];
  /** Pairs of classes that share a token in this prompt, so that it cannot tell them apart. */
  readonly collisions: readonly (readonly [string, string])[];
  readonly prompt: PromptRecord;
}

/** One task in one modality. */
export interface EvolutionCell {
  readonly task: string;
  readonly modality: Modality;
  /** Names of the classes that were asked for, in order. */
  readonly classes: readonly string[];
  /** Why a class has no tokens here. */
  readonly missing: Readonly<Record<string, string>>;
  /** `count` of the first `prompts` prompts decode to it at layer 0; `answer` when the task has an answer that begins with it. */
  readonly input: { readonly token: number; readonly text: string; readonly count: number; readonly answer: boolean };
  readonly taskWord?: string;
  /** Tokens of `other` for a prompt, at most. */
  readonly otherTokens: number;
  /** Number of prompts that were asked for, of all seeds together. */
  readonly prompts: number;
  /** The first `prompts` ones, then those drawn because classes collide in some of them. */
  readonly readings: readonly PromptReading[];
  /** How many of the first `prompts` ones have a right answer whose first token a wrong answer of the task shares. */
  readonly ambiguous: number;
}

/** Prompts read through the lens at once. */
const GROUP = 16;
/** Seeds that prompts are drawn from before a task counts as too small. */
const MAX_SEEDS = 100;

/**
 * How a state at the last delimiter changes from layer to layer (Luo, Darrell and Bar, "Task Vectors are Cross-Modal", 2024,
 * figure on the evolution of representations): the logit lens there, reduced to a few classes of tokens.
 *
 * Prompts are those that task vectors are read from (`vectorPrompts`, read position `last-example`), over all items of the task
 * instead of 30: each item in turn is left out, and the others give the shots. A task with fewer items than prompts continues with seeds after
 * the last; a prompt that was drawn before does not count. All modalities of a run have the same items.
 *
 * @throws {XpatchError} IMAGE_UNSUPPORTED, TASK_INVALID, TOKEN_INVALID, INVALID_ARGUMENT, and as `Context.pass`.
 */
export function runEvolution(
  context: Context,
  options: EvolutionOptions,
  events: StudyEvents<EvolutionCell> = {},
): Promise<EvolutionCell[]> {
  return runStudy(evolutionUnits, context, options, events);
}

/** A part for each task and modality. */
export const evolutionUnits: Study<EvolutionOptions, EvolutionCell> = async (context, options) => {
  const { tasks, modalities, seeds = [1], style, prompts = 100 } = options;
  const pictures = modalities.includes('image');
  requireModalities(context.model, modalities);
  requireSeeds(seeds);
  if (!Number.isSafeInteger(prompts) || prompts < 1) {
    throw new XpatchError('INVALID_ARGUMENT', `A curve needs at least 1 prompt, not ${String(prompts)}.`);
  }
  const format = await promptFormat(context.model, options.template);
  const { names } = await checkClasses(context.model, options.classes ?? EVOLUTION_CLASSES, format);
  const loaded: Task[] = [];
  for (const name of tasks) {
    const task = await loadTask(name, { pictures, style });
    if (names.length === 2 && names.includes('task')) await requireTaskWord(context.model, task, format);
    loaded.push(task);
  }
  return loaded.flatMap((task) =>
    modalities.map((modality) => ({
      name: `${task.name}, ${modality}`,
      run: (_, { signal, onProgress }) =>
        readCell(context, { ...options, task, modality, pictures, seeds, prompts, format }, signal, onProgress),
    })),
  );
};

/** Curves compare two classes at least, and one of two is the task word. */
async function requireTaskWord(model: Tokenizer, { name, taskWord }: Task, format: PromptFormat): Promise<void> {
  if (taskWord !== undefined && (await wordTokens(model, taskWord, format)).length > 0) return;
  const why =
    taskWord === undefined ? 'has none' : `has ${JSON.stringify(taskWord)}, which this model spells in pieces`;
  throw new XpatchError(
    'TASK_INVALID',
    `The class of the task word needs one, but task ${name} ${why}. Add a third class.`,
  );
}

interface CellPlan extends EvolutionOptions {
  task: Task;
  modality: Modality;
  pictures: boolean;
  seeds: readonly number[];
  prompts: number;
  format: PromptFormat;
}

interface Drawn {
  seed: number;
  parts: VectorPrompt['parts'];
  query: TaskItem;
}

interface Read extends Drawn {
  record: PromptRecord;
  states: HiddenStates;
}

async function readCell(
  context: Context,
  plan: CellPlan,
  signal: AbortSignal | undefined,
  report: (share: number) => void,
): Promise<EvolutionCell> {
  const { task, modality, seeds, prompts, format } = plan;
  const count = prompts * seeds.length;
  const tokens = await taskTokens(context.model, task, format);
  const source = drawPrompts(plan);
  const first = take(source, count, () => true);
  const read = await readStates(context, task, first, { signal, onProgress: (p) => report((0.7 * p.done) / p.total) });
  const input = await inputToken(context, read, tokens, signal);
  const classes = await resolveClasses(context.model, task, tokens, input.token, plan.classes, format);

  // Enough prompts that tell the classes apart, where some of the first ones do not.
  const clean = first.filter(({ query }) => classes.collisions(query).length === 0).length;
  const extra = take(source, count - clean, ({ query }) => classes.collisions(query).length === 0);
  if (extra.length) {
    read.push(
      ...(await readStates(context, task, extra, {
        signal,
        onProgress: (p) => report(0.7 + (0.1 * p.done) / p.total),
      })),
    );
  }
  const readings: PromptReading[] = [];
  for (let at = 0; at < read.length; at += GROUP) {
    const group = read.slice(at, at + GROUP);
    readings.push(...(await readGroup(context, group, classes, tokens, input.token, signal)));
    report(0.8 + (0.2 * readings.length) / read.length);
  }
  const otherTokens = Math.max(...first.map(({ query }) => classes.tokensFor('other', query)?.length ?? 0));
  return {
    task: task.name,
    modality,
    classes: classes.names,
    missing: classes.missing,
    input,
    taskWord: task.taskWord,
    otherTokens,
    prompts: count,
    readings,
    ambiguous: first.filter(({ query }) => isAmbiguous(query, tokens)).length,
  };
}

/** All prompts of a task, none twice: as many of each seed as are asked for, then the rest of each, then those of seeds after the last. */
function* drawPrompts({
  task,
  modality,
  pictures,
  seeds,
  shots = 5,
  prompts,
  format,
}: CellPlan): Generator<Drawn, never> {
  const inputs = task.items.filter((item) => !pictures || item.image !== undefined).map((item) => item.input);
  const validation = new Set(inputs).size;
  const drawnBy = (seed: number) =>
    vectorPrompts(splitTask(task, seed, { pictures, validation, test: 0 }), modality, { shots, format });
  const last = Math.max(...seeds);
  const rounds: [seed: number, from: number, to?: number][] = [
    ...seeds.map((seed): [number, number, number] => [seed, 0, prompts]),
    ...seeds.map((seed): [number, number] => [seed, prompts]),
    ...Array.from({ length: MAX_SEEDS }, (_, i): [number, number] => [last + 1 + i, 0]),
  ];
  const seen = new Set<string>();
  for (const [seed, from, to] of rounds) {
    for (const { parts, shots: examples } of drawnBy(seed).slice(from, to)) {
      const key = JSON.stringify(examples.map((item) => item.input));
      const query = examples.at(-1);
      if (seen.has(key) || query === undefined) continue;
      seen.add(key);
      yield { seed, parts, query };
    }
  }
  const problem = `Task ${task.name} gave ${seen.size} different prompts of ${shots} shots under ${seeds.length + MAX_SEEDS} seeds`;
  const wayOut = `${prompts * seeds.length} in which the token classes differ were asked for. Ask for fewer prompts, or add items.`;
  throw new XpatchError('TASK_INVALID', `${problem}; ${wayOut}`);
}

function take(source: Generator<Drawn, never>, count: number, wanted: (prompt: Drawn) => boolean): Drawn[] {
  const taken: Drawn[] = [];
  while (taken.length < count) {
    const { value } = source.next();
    if (wanted(value)) taken.push(value);
  }
  return taken;
}

async function readStates(
  context: Context,
  { pictures }: Task,
  drawn: readonly Drawn[],
  how: PassOptions,
): Promise<Read[]> {
  const prompts: Prompt[] = [];
  for (const { parts } of drawn) prompts.push(await context.model.prompt(parts, how));
  const capture = { layers: 'all' as const, positions: [DELIMITER] };
  const results = await context.pass(
    prompts.map((prompt) => ({ prompt, capture })),
    how,
  );
  return drawn.map((prompt, i) => {
    const { states } = results[i] as (typeof results)[number];
    return { ...prompt, states, record: (prompts[i] as Prompt).record(pictures) };
  });
}

/** The most frequent best token of the lowest layer. */
async function inputToken(context: Context, read: readonly Read[], tokens: TaskTokens, signal?: AbortSignal) {
  const { cells } = await logitLens(context, stack(read, [0]), { topK: 1, signal });
  const counts = new Map<number, number>();
  for (const cell of cells[0] ?? []) {
    const token = cell.top[0]?.token as number;
    counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  const [token, count] = [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best));
  return { token, count, text: context.model.detokenize([token]), answer: tokens.begun.has(token) };
}

async function readGroup(
  context: Context,
  group: readonly Read[],
  classes: Classes,
  tokens: TaskTokens,
  input: number,
  signal?: AbortSignal,
): Promise<PromptReading[]> {
  const sets = group.map(({ query }) =>
    classes.names.flatMap((name) => {
      const ids = classes.tokensFor(name, query);
      return ids ? [{ name, ids }] : [];
    }),
  );
  const asked = [...new Set([...sets.flatMap((set) => set.flatMap(({ ids }) => ids)), ...tokens.word])];
  const place = new Map(asked.map((token, i) => [token, i]));
  const { cells } = await logitLens(context, stack(group), { topK: 1, tokens: asked, signal });
  return group.map(({ seed, query, record }, p) => {
    const perLayer = cells.map((row) => row[p] as (typeof row)[number]);
    const scores = (ids: readonly number[], layer: (typeof perLayer)[number]) =>
      ids.map((id) => layer.tokens[place.get(id) as number] as (typeof layer.tokens)[number]);
    const highest = (ids: readonly number[]) =>
      perLayer.map((layer) => Math.max(...scores(ids, layer).map(({ logit }) => logit)));
    return {
      seed,
      query: query.input,
      expected: query.output,
      logits: Object.fromEntries((sets[p] ?? []).map(({ name, ids }) => [name, highest(ids)])),
      top: perLayer.map(({ top: [best] }) => {
        const { token, text } = best as NonNullable<typeof best>;
        return { token, text, is: classOf(token, query, tokens, input) };
      }),
      ...(tokens.word.length > 0 && {
        taskRank: perLayer.map((layer) => Math.min(...scores(tokens.word, layer).map(({ rank }) => rank))),
      }),
      collisions: classes.collisions(query),
      prompt: record,
    };
  });
}

/** The states of several prompts as positions of one lens. */
function stack(read: readonly Pick<Read, 'states'>[], layers?: readonly number[]): HiddenStates {
  const [first] = read as readonly [Read];
  const { hook, model, shape } = first.states;
  const chosen = layers ?? first.states.layers;
  const data = new Float32Array(chosen.length * read.length * shape[2]);
  chosen.forEach((layer, l) => {
    read.forEach(({ states }, p) => void data.set(states.at(layer), (l * read.length + p) * shape[2]));
  });
  const tokens = read.map(({ states }) => states.tokens[0] as number);
  return new HiddenStates({ hook, model, layers: chosen, positions: [...read.keys()], tokens }, data);
}
