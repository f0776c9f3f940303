import { availableParallelism } from 'node:os';
import type { Context, PassOptions } from '../model/context.js';
import { isSmall } from '../model/context-options.js';
import type { Model } from '../model/model.js';
import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import type { TaskVector } from '../vectors/task-vector.js';
import type { Batch } from './answer.js';
import { batchesOf, linesOfItem } from './batches.js';
import { LayerChoice } from './layer-choice.js';
import { memoryStore } from './memory-store.js';
import { localSeats, type Seat, type Seats } from './seats.js';
import { membersOf, type Shard } from './shard.js';
import { type Cell, conditionsOf, layersOf, prepareStudy, type Study } from './study.js';
import {
  type Condition,
  type Experiment,
  type ExperimentProgress,
  type ExperimentWork,
  keyOf,
  type QueryKey,
  type ResultLine,
  type RunStore,
} from './types.js';
import { conditionsToMake, VectorMaker, vectorOf, weightOf } from './vectors.js';

/** How an experiment is run. */
export interface RunOptions {
  /** The model of `foreign` conditions, for `vectorModel`. */
  foreign?: Context;
  /** Instead of it, its hash, if the store has every vector of it. */
  foreignHash?: string | undefined;
  /** Ask only the queries of this shard (see `membersOf`). Defaults to all. */
  shard?: Shard;
  /** Bound on the logits that scoring holds for each thing computed at a time, bytes. Defaults to 64 MiB. */
  memory?: number;
  /**
   * How many things, vectors or items, are computed at a time, each in its own context like the one given; `parallelism`
   * says what suits a model. The answers do not depend on it. A whole number from 1 to 512; defaults to 1.
   */
  parallel?: number;
  /** What computes the run instead of `parallel` contexts of this process, such as a queue. */
  seats?: Seats | undefined;
  /**
   * Ends the run with ABORTED after the queries in progress, whose answers are kept; vectors being made are given up. The
   * same store resumes from there.
   */
  signal?: AbortSignal;
  /** How the work divides (`Plan.work`), for the progress. Defaults to equal weights for everything counted. */
  work?: ExperimentWork;
  /** Called as the run proceeds. */
  onProgress?: (progress: ExperimentProgress) => void;
  /** Called before the test if validation cannot tell apart the layers that it has to choose from. */
  onNote?: (text: string) => void;
}

/** What a run decided, besides its lines. */
export interface ExperimentResult {
  /** Where patches were written in the test, 0-based block outputs; none without patch conditions. */
  readonly layers: readonly number[];
}

/** Default of `RunOptions.memory`. */
export const LOGITS_BYTES = 64 << 20;
/** Answers go to the store no more often than this: making them durable takes a disk some milliseconds. */
const APPEND_EVERY_MS = 250;

/**
 * Runs an experiment: vectors from validation items, the layer from validation items if it has to be chosen, then every
 * condition on the same test queries. What the store already knows is not done again, and an interrupted run
 * ends with the same lines as an undisturbed one: what is computed together does not depend on what is known.
 *
 * @throws {XpatchError} what `prepareStudy`, `Model.createContext` and `Context.generate` throw; INVALID_ARGUMENT; ABORTED
 */
export async function runExperiment(
  context: Context,
  experiment: Experiment,
  store: RunStore = memoryStore(),
  options: RunOptions = {},
): Promise<ExperimentResult> {
  const { foreign, foreignHash, parallel = 1 } = options;
  if (!Number.isInteger(parallel) || parallel < 1 || parallel > 512) {
    throw new XpatchError('INVALID_ARGUMENT', `parallel must be a whole number from 1 to 512, not ${parallel}.`);
  }
  const study = await prepareStudy(context.model, experiment, foreign?.model, foreignHash !== undefined);
  const choice = new LayerChoice(experiment);
  for await (const line of store.lines()) choice.add(line);
  await using seats = options.seats ?? (await localSeats({ context, foreign }, parallel));
  const runner = new Runner(context.model, seats, study, store, options, (line) => choice.add(line));
  const every = allLayers(context.model);
  await runner.stage('validation', Object.fromEntries(experiment.conditions.map(({ name }) => [name, every])));
  if (options.shard?.stage === 'validation') return { layers: [] };
  const layers = layersOf(study, (kind) => choice.best(kind));
  const doubt = study.layers ? undefined : choice.doubt();
  if (doubt !== undefined) options.onNote?.(doubt);
  await runner.stage('test', layers);
  return { layers: [...new Set(Object.values(layers).flat())].sort((a, b) => a - b) };
}

function allLayers({ info }: Model): number[] {
  return Array.from({ length: info.nLayers }, (_, layer) => layer);
}

class Runner {
  private readonly known: Set<string>;
  private readonly isMember: ReturnType<typeof membersOf>;
  private readonly vectors: VectorMaker;
  private readonly progress: Meter;
  /** Vectors that `progress` has counted. */
  private readonly counted = new Set<string>();
  private readonly pending: ResultLine[] = [];
  private appended = performance.now();
  private appending = Promise.resolve();

  constructor(
    private readonly model: Model,
    private readonly seats: Seats,
    private readonly study: Study,
    private readonly store: RunStore,
    private readonly options: RunOptions,
    private readonly onLine: (line: ResultLine) => void,
  ) {
    this.known = new Set(store.known);
    this.isMember = membersOf(options.shard, study, model.info.nLayers);
    const hashes = { own: model.identity.hash, foreign: options.foreign?.model.identity.hash ?? options.foreignHash };
    this.vectors = new VectorMaker(study, store, hashes, seats.wide);
    this.progress = new Meter(this.counts(), options);
  }

  /** Asks what the store does not know yet. If this fails, the store has every answer so far, unless the store itself failed. */
  async stage(stage: QueryKey['stage'], layers: Batch['layers']): Promise<void> {
    const conditions = conditionsOf(this.study, stage);
    if (conditions.length === 0) return;
    try {
      const asked = (cell: Cell) => this.cell(cell, stage, conditions, layers);
      if (this.seats.wide) await allOf(this.study.cells.map(asked));
      else for (const cell of this.study.cells) await asked(cell);
    } finally {
      await this.append();
    }
  }

  private async cell(
    cell: Cell,
    stage: QueryKey['stage'],
    conditions: readonly Condition[],
    layers: Batch['layers'],
  ): Promise<void> {
    const { model, study, options } = this;
    const { task, seed } = cell.split;
    const keysOf = (item: TaskItem) =>
      keysOfItem({ stage, task: task.name, seed, item: item.input }, conditions, layers);
    const batches = this.batchesOf(cell, stage);
    const items = batches.flat();
    const isNew = (item: TaskItem) => keysOf(item).some((key) => !this.known.has(key));
    this.progress.at({ stage, task: task.name, seed });
    const count = linesOfItem(study, stage, model.info.nLayers);
    if (items.length === 0) return;
    const patched = conditionsToMake(study, cell, stage, this.isMember);
    if (!items.some(isNew)) {
      this.countVectors(cell, patched);
      this.progress.add(stage, items.length * count, true);
      return;
    }
    const made = await this.vectorsOf(cell, patched);
    const vectors = new Map([...made].filter(([name]) => conditions.some((one) => one.name === name)));
    this.progress.at({ stage, task: task.name, seed });
    // Whole batches, even if part is known: other company in a batch would change the last digits.
    const fresh = batches.filter((some) => some.some(isNew));
    const known = batches.filter((some) => !some.some(isNew)).flat();
    this.progress.add(stage, known.length * count, true);
    const answered: (ResultLine[] | undefined)[] = [];
    let taken = 0;
    // In the order of the items, whichever is ready first; from a queue, whose answers may be hours apart, as they come.
    const take = (index: number) => {
      if (this.seats.wide) this.take(answered[index] ?? []);
      else for (let lines = answered[taken]; lines; lines = answered[++taken]) this.take(lines);
    };
    const answer = async (some: readonly TaskItem[], index: number, seat: Seat) => {
      this.requireNotAborted();
      const maxBytes = options.memory ?? LOGITS_BYTES;
      const batch = { study, cell, stage, items: some, conditions, layers, vectors, maxBytes };
      const total = some.length * count;
      answered[index] = await seat.answer(batch, (p) => this.progress.begin(seat, stage, (total * p.done) / p.total));
      this.progress.end(seat, stage, total);
      take(index);
      if (this.seats.wide || performance.now() - this.appended > APPEND_EVERY_MS) await this.append();
    };
    try {
      await this.seats.each(fresh, answer);
    } finally {
      for (const lines of answered.slice(taken)) this.take(lines ?? []); // after one that failed
    }
  }

  /** Those of `batchesOf` that are asked here. */
  private batchesOf(cell: Cell, stage: QueryKey['stage']): TaskItem[][] {
    const { task, seed } = cell.split;
    const isMember = ({ input: item }: TaskItem) => this.isMember({ stage, task: task.name, seed, item });
    return batchesOf(this.study, cell, stage, this.model.info.nLayers).filter((items) => items.every(isMember));
  }

  private async vectorsOf(cell: Cell, conditions: readonly Condition[]) {
    const vectors = new Map<string, { name: string; vector: TaskVector }>();
    await this.seats.each(conditions, async (condition, _, seat) => {
      const wanted = vectorOf(this.study, cell, condition);
      if (!wanted) return;
      this.requireNotAborted();
      const { name, cell: own } = wanted;
      this.progress.at({ stage: 'vectors', task: own.split.task.name, seed: own.split.seed });
      const weight = this.counted.has(name) ? 0 : weightOf(wanted);
      this.counted.add(name);
      const how: PassOptions = {
        signal: this.options.signal,
        onProgress: (p) => this.progress.begin(seat, 'vectors', (weight * p.done) / p.total),
      };
      vectors.set(condition.name, { name, vector: await this.vectors.get(wanted, seat.read, how) });
      this.progress.end(seat, 'vectors', weight);
    });
    return vectors;
  }

  /** Those of a cell with nothing left to ask. */
  private countVectors(cell: Cell, conditions: readonly Condition[]): void {
    for (const condition of conditions) {
      const wanted = vectorOf(this.study, cell, condition);
      if (!wanted || this.counted.has(wanted.name)) continue;
      this.counted.add(wanted.name);
      this.progress.add('vectors', weightOf(wanted), true);
    }
  }

  /** Everything that `progress` counts. */
  private counts(): ExperimentWork {
    const { study, model } = this;
    const vectors = new Map<string, number>();
    const queries = { validation: 0, test: 0 };
    for (const cell of study.cells) {
      for (const stage of ['validation', 'test'] as const) {
        const items = this.batchesOf(cell, stage).flat();
        queries[stage] += items.length * linesOfItem(study, stage, model.info.nLayers);
        if (items.length === 0) continue;
        for (const condition of conditionsToMake(study, cell, stage, this.isMember)) {
          const wanted = vectorOf(study, cell, condition);
          if (wanted) vectors.set(wanted.name, weightOf(wanted));
        }
      }
    }
    return { vectors: [...vectors.values()].reduce((sum, weight) => sum + weight, 0), ...queries };
  }

  private take(lines: readonly ResultLine[]): void {
    for (const line of lines) {
      const key = keyOf(line);
      if (this.known.has(key)) continue;
      this.known.add(key);
      this.pending.push(line);
      this.onLine(line);
    }
  }

  /** One after the other, whoever asks. Lines that the store refused are handed over again with later ones. */
  private append(): Promise<void> {
    this.appending = this.appending
      .catch(() => undefined)
      .then(async () => {
        const lines = [...this.pending];
        this.appended = performance.now();
        if (lines.length) await this.store.append(lines);
        this.pending.splice(0, lines.length);
      });
    return this.appending;
  }

  private requireNotAborted(): void {
    const { signal } = this.options;
    if (!signal?.aborted) return;
    const message = 'The run was interrupted. Its answers are kept; start it again to resume.';
    throw new XpatchError('ABORTED', message, { cause: signal.reason });
  }
}

/** Waits for all, even if some fail. @throws what failed first in the list */
async function allOf(work: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(work)) if (result.status === 'rejected') throw result.reason;
}

/** Keys of everything that is asked about one item. */
function keysOfItem(
  asked: Omit<QueryKey, 'condition' | 'layer'>,
  conditions: readonly Condition[],
  layers: Batch['layers'],
): string[] {
  return conditions.flatMap(({ name, kind }) =>
    (kind === 'patch' ? (layers[name] ?? []) : [undefined]).map((layer) => keyOf({ ...asked, condition: name, layer })),
  );
}

/**
 * What suits a model as `RunOptions.parallel` if `cores` may be used: that many if a second thread would not make a pass
 * faster, as in models under 64 MB on the CPU, else 1. Their contexts need one thread each (`ContextOptions.threads`).
 *
 * @param cores Defaults to the machine's, at most 8.
 */
export function parallelism(model: Model, cores = Math.min(availableParallelism(), 8)): number {
  return isSmall(model) ? cores : 1;
}

type Part = keyof ExperimentWork;

/** Counts what is done. A vector counts as much as it has prompts, everything else one per query. */
class Meter {
  private readonly done = { vectors: 0, validation: 0, test: 0 };
  /** Of these, what is not from an earlier process. */
  private readonly fresh = { vectors: 0, validation: 0, test: 0 };
  /** What is in progress in each seat. */
  private readonly begun = new Map<Seat, { part: Part; n: number }>();
  /** The fraction of the whole work that one of each is. */
  private readonly each: ExperimentWork;
  private where: Pick<ExperimentProgress, 'stage' | 'task' | 'seed'> = { stage: 'vectors', task: '', seed: 0 };

  constructor(
    private readonly counts: ExperimentWork,
    private readonly options: Pick<RunOptions, 'work' | 'onProgress'>,
  ) {
    const shares = (work: ExperimentWork) => sumOf((part) => (counts[part] > 0 ? work[part] : 0));
    const work = options.work && shares(options.work) > 0 ? options.work : counts;
    const all = shares(work);
    const each = (part: Part) => (counts[part] > 0 ? work[part] / all / counts[part] : 0);
    this.each = { vectors: each('vectors'), validation: each('validation'), test: each('test') };
  }

  at(where: Pick<ExperimentProgress, 'stage' | 'task' | 'seed'>): void {
    this.where = where;
    this.show();
  }

  /** @param n how much is done of what is in progress in a seat */
  begin(seat: Seat, part: Part, n: number): void {
    this.begun.set(seat, { part, n });
    this.show();
  }

  /** @param n all of what was in progress in a seat */
  end(seat: Seat, part: Part, n: number): void {
    this.begun.delete(seat);
    this.add(part, n);
  }

  add(part: Part, n: number, known = false): void {
    this.done[part] += n;
    if (!known) this.fresh[part] += n;
    this.show();
  }

  private show(): void {
    const { counts, done, fresh, each, where } = this;
    const begun = [...this.begun.values()];
    const more = begun.reduce((sum, { n }) => sum + n, 0);
    const worked = begun.reduce((sum, { part, n }) => sum + n * each[part], 0);
    this.options.onProgress?.({
      done: Math.floor(sumOf((one) => done[one]) + more),
      total: sumOf((one) => counts[one]),
      fresh: Math.floor(sumOf((one) => fresh[one]) + more),
      worked: sumOf((one) => fresh[one] * each[one]) + worked,
      left: sumOf((one) => (counts[one] - done[one]) * each[one]) - worked,
      ...where,
    });
  }
}

function sumOf(value: (part: Part) => number): number {
  return value('vectors') + value('validation') + value('test');
}
