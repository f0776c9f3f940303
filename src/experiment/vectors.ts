import type { PassOptions } from '../model/context.js';
import type { PromptPart } from '../prompt/types.js';
import { type Modality, type VectorExamples, vectorExamples } from '../tasks/prompts.js';
import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { TaskVector } from '../vectors/task-vector.js';
import { type Cell, conditionsOf, instructionOf, itemsOf, kindOf, type Study } from './study.js';
import type { Condition, Control, QueryKey, RunStore, VectorKind, VectorSpec } from './types.js';

/** A vector that a run needs: for one task and seed, made in one way. */
export interface WantedVector {
  /** File name in vectors/, unique in a run: `food-color.text.seed1`, `food-color.text.shuffled-labels.seed1`, ... */
  readonly name: string;
  readonly cell: Cell;
  readonly spec: VectorSpec;
  /** How many prompts of examples it is the mean of. */
  readonly prompts: number;
  readonly swaps: number;
  readonly foreign: boolean;
  readonly vector: VectorKind;
  /** Of a function vector. */
  readonly heads: number;
  readonly control?: Exclude<Control, 'wrong-task' | 'identity'>;
}

/** Heads of a function vector. */
const HEADS = 10;

/** What says which vectors a run needs. */
type Cells = Pick<Study, 'experiment' | 'cells'>;

/** Which queries are asked (`membersOf`). */
type IsMember = (query: Pick<QueryKey, 'stage' | 'task' | 'seed' | 'item'>) => boolean;

/** The vector that a condition patches into the queries of a cell; undefined if it patches none from a file. */
export function vectorOf(study: Cells, cell: Cell, condition: Condition): WantedVector | undefined {
  const { kind, spec, control, foreign = false } = condition;
  if (kind !== 'patch' || control === 'identity' || spec === undefined) return undefined;
  const { prompts = study.experiment.prompts, swaps = 0, heads = HEADS } = condition;
  const own = control === 'wrong-task' ? nextTask(study, cell) : cell;
  return wanted(study, {
    cell: own,
    spec,
    prompts,
    swaps,
    foreign,
    vector: kindOf(condition),
    heads,
    ...(control !== undefined && control !== 'wrong-task' && { control }),
  });
}

/**
 * The conditions whose vectors are made before the queries of a cell are asked: those of the stage, and with the cell's first
 * validation query all that are of this cell, so that the parts of a test need not make them each.
 */
export function conditionsToMake(study: Cells, cell: Cell, stage: QueryKey['stage'], isMember: IsMember): Condition[] {
  const asked = conditionsOf(study, stage);
  const { task, seed, validation } = cell.split;
  const [first] = validation;
  if (stage === 'test' || asked.length === 0 || !first) return asked;
  if (!isMember({ stage, task: task.name, seed, item: first.input })) return asked;
  const { conditions } = study.experiment;
  return conditions.filter((one) => asked.includes(one) || vectorOf(study, cell, one)?.cell === cell);
}

/** How much work a vector is: its prompts, or one if it has a single one or is computed from one other vector. */
export function weightOf({ spec, prompts, control }: WantedVector): number {
  return spec === 'instruction' || control === 'random-vector' || control === 'wrong-layer' ? 1 : prompts;
}

/** The vectors that a vector is computed from; empty for one that is read from prompts. */
export function sourcesOf(study: Study, vector: WantedVector): WantedVector[] {
  const { control, ...plain } = vector;
  if (control === 'random-vector' || control === 'wrong-layer') return [wanted(study, plain)];
  if (vector.vector === 'steering') {
    const task = { ...plain, vector: 'task' } as const;
    return [wanted(study, task), wanted(study, { ...task, control: 'shuffled-labels' })];
  }
  if (vector.spec !== 'ensemble') return [];
  return [wanted(study, { ...vector, spec: 'text', swaps: 0 }), wanted(study, { ...plain, spec: 'instruction' })];
}

/** Every vector of an experiment, or of a shard, once, each after those that it is computed from. */
export function vectorsOf(study: Study, isMember: IsMember = () => true): WantedVector[] {
  const all = new Map<string, WantedVector>();
  const add = (vector: WantedVector): void => {
    for (const source of sourcesOf(study, vector)) add(source);
    all.set(vector.name, vector);
  };
  for (const cell of study.cells) {
    const { task, seed } = cell.split;
    for (const stage of ['validation', 'test'] as const) {
      if (!itemsOf(cell, stage).some(({ input: item }) => isMember({ stage, task: task.name, seed, item }))) continue;
      for (const condition of conditionsToMake(study, cell, stage, isMember)) {
        const vector = vectorOf(study, cell, condition);
        if (vector) add(vector);
      }
    }
  }
  return [...all.values()];
}

/** The prompts that a vector without sources is read from. */
export function promptsOf({ experiment, format }: Study, vector: WantedVector): PromptPart[][] {
  const { cell, spec, prompts: count, swaps, control } = vector;
  if (spec === 'instruction') return [format.write({ instruction: instructionOf(cell.split, swaps) })];
  const { shots, readPosition } = experiment;
  return vectorExamples(cell.split, { shots, count, readPosition }).map(({ whole, last, query }: VectorExamples) =>
    format.write({
      shots: control === 'shuffled-labels' ? shuffleLabels(whole, cell.split.seed, query.input) : whole,
      shotModality: spec as Modality,
      query: last,
      queryModality: spec as Modality,
    }),
  );
}

/**
 * The same inputs with each other's answers: of 50 orders drawn by the seed, the one that leaves the fewest answers right,
 * ideally none.
 */
export function shuffleLabels(shots: readonly TaskItem[], seed: number, stream: string): TaskItem[] {
  const random = new Random(seed, 'shuffled-labels', stream);
  let best: { shots: TaskItem[]; right: number } | undefined;
  for (let draw = 0; draw < 50 && best?.right !== 0; draw++) {
    const answers = random.sample(shots.map(({ output }) => output));
    const shuffled = shots.map((shot, i) => ({ ...shot, output: answers[i] as string }));
    const right = shuffled.filter(({ output }, i) => output === shots[i]?.output).length;
    if (best === undefined || right < best.right) best = { shots: shuffled, right };
  }
  return best?.shots ?? [];
}

/** Reads a vector of a study that has no sources: `readVector` here, or on another machine. */
export type VectorReader = (study: Study, wanted: WantedVector, events: PassOptions) => Promise<TaskVector>;

/** Makes each vector once in the life of a run; later it comes from the store. */
export class VectorMaker {
  /** Of one seed, so that memory does not grow with the seeds; of all seeds if they are made at once. */
  private readonly made = new Map<string, Promise<TaskVector>>();
  private seed: number | undefined;

  constructor(
    private readonly study: Study,
    private readonly store: RunStore,
    private readonly hashes: { readonly own: string; readonly foreign: string | undefined },
    private readonly seedsAtOnce = false,
  ) {}

  /**
   * @param read used if it is not in the store and has no sources
   * @param events.onProgress prompts read of all, for a vector that is made and not loaded
   * @throws {XpatchError} VECTOR_MISMATCH if the store's vector is of another model; as `Context.pass`
   */
  get(wanted: WantedVector, read: VectorReader, events: PassOptions = {}): Promise<TaskVector> {
    const { seed } = wanted.cell.split;
    if (seed !== this.seed && !this.seedsAtOnce) this.made.clear();
    this.seed = seed;
    const before = this.made.get(wanted.name);
    if (before) return before;
    const vector = this.loadOrMake(wanted, read, events);
    this.made.set(wanted.name, vector);
    return vector;
  }

  private async loadOrMake(wanted: WantedVector, read: VectorReader, events: PassOptions): Promise<TaskVector> {
    const stored = await this.store.loadVector(wanted.name);
    if (!stored) {
      const vector = await this.make(wanted, read, events);
      await this.store.saveVector(wanted.name, vector);
      return vector;
    }
    const { own, foreign } = this.hashes;
    if (stored.info.model.hash !== (wanted.foreign ? foreign : own)) {
      const message = `The run's vector ${wanted.name} is of another model (${stored.info.model.name})`;
      throw new XpatchError('VECTOR_MISMATCH', `${message}. Resume it with the model it was started with.`);
    }
    return stored;
  }

  private async make(wanted: WantedVector, read: VectorReader, events: PassOptions): Promise<TaskVector> {
    const sources: TaskVector[] = [];
    for (const source of sourcesOf(this.study, wanted)) sources.push(await this.get(source, read, events));
    const [only, shuffled] = sources;
    if (only && shuffled) return wanted.vector === 'steering' ? only.subtract(shuffled) : TaskVector.mean(sources);
    if (!only) return read(this.study, wanted, events);
    const { seed } = wanted.cell.split;
    return wanted.control === 'random-vector' ? only.normMatchedRandom(seed) : only.rollLayers(halfDepth(only));
  }
}

/** The wrong layer is half the depth away: for a layer in the lower half one in the upper half, and vice versa. */
function halfDepth(vector: TaskVector): number {
  return Math.ceil(vector.info.layers.length / 2);
}

function wanted({ experiment }: Cells, vector: Omit<WantedVector, 'name'>): WantedVector {
  const { cell, spec, prompts, swaps, foreign, heads, control } = vector;
  const isInstruction = spec === 'instruction';
  const parts = [
    cell.split.task.name,
    spec,
    ...(vector.vector === 'task' ? [] : [vector.vector]),
    ...(vector.vector === 'function' && heads !== HEADS ? [`heads${heads}`] : []),
    ...(!isInstruction && prompts !== experiment.prompts ? [`prompts${prompts}`] : []),
    ...(swaps > 0 ? [`swaps${swaps}`] : []),
    ...(foreign ? ['foreign'] : []),
    ...(control ? [control] : []),
    `seed${cell.split.seed}`,
  ];
  return { ...vector, name: parts.join('.') };
}

/** The next task in the list under the same seed: half of the shipped ones ask about the query's own domain. */
function nextTask({ cells }: Cells, cell: Cell): Cell {
  const sameSeed = cells.filter(({ split }) => split.seed === cell.split.seed);
  return sameSeed[(sameSeed.indexOf(cell) + 1) % sameSeed.length] as Cell;
}
