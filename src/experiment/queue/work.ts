import { createHash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { Context } from '../../model/context.js';
import { listDevices, native } from '../../native/index.js';
import { XpatchError } from '../../util/errors.js';
import type { TaskVector } from '../../vectors/task-vector.js';
import { answerBatch } from '../answer.js';
import { readVector } from '../read-vector.js';
import { conditionsOf, prepareStudy, type Study } from '../study.js';
import type { Experiment } from '../types.js';
import { vectorsOf } from '../vectors.js';
import type { Broker } from './broker.js';
import {
  kernelsOfRun,
  packVector,
  type QueuedResult,
  type QueuedRun,
  type QueuedWork,
  queueOf,
  RUNS,
  refusedOfRun,
  unpackVector,
  vectorsOfRun,
} from './protocol.js';

/** Of `workOn`. */
export interface WorkOptions {
  readonly context: Context;
  /** The model of `foreign` conditions. */
  readonly foreign?: Context | undefined;
  /** The run's, with the paths of its tasks on this machine. */
  readonly experiment: Experiment;
  readonly signal?: AbortSignal | undefined;
  /** Called after every batch and vector, with their number so far. */
  readonly onWork?: (done: number) => void;
}

/** Between two checks that the run is still there. */
const LOOK_MS = 1000;
/** How long a vector may take from the leading process to the queue. */
const VECTOR_MS = 60_000;

/** Runs in a queue, by id. @throws {XpatchError} QUEUE_FAILED for what is not a run */
export async function runsIn({ redis }: Broker): Promise<QueuedRun[]> {
  return Object.values(await redis.hgetall(RUNS)).map((text) => JSON.parse(text) as QueuedRun);
}

/**
 * Answers what is in the queue of a run until it is complete, or until the signal, after the current batch.
 *
 * @returns how much was done
 * @throws {XpatchError} RUN_MISMATCH if this machine computes differently from the first worker, and the run wants them alike; as
 *   `prepareStudy`
 */
export async function workOn(broker: Broker, run: QueuedRun, options: WorkOptions): Promise<number> {
  const { context, foreign, experiment, signal, onWork } = options;
  const study = await prepareStudy(context.model, experiment, foreign?.model);
  const by = await kernelsOf(context);
  await requireKernels(broker, run, by);
  const vectors = new QueueVectors(broker, run);
  let done = 0;
  const worker = broker.worker(queueOf(run.id), async ({ data }): Promise<QueuedResult> => {
    try {
      const work = data as QueuedWork;
      const result = work.kind === 'vector' ? await makeVector(study, work.name, options) : await answer(work);
      done += 1;
      onWork?.(done);
      return { by, ...result };
    } catch (error) {
      // Only the message of an error goes through the queue.
      if (error instanceof XpatchError) throw new Error(`${error.code}: ${error.message}`);
      throw error;
    }
  });
  const answer = async (work: Extract<QueuedWork, { kind: 'answers' }>) => {
    const cell = study.cells.find(({ split }) => split.task.name === work.task && split.seed === work.seed);
    const all = work.stage === 'test' ? cell?.split.test : cell?.split.validation;
    const items = work.items.map((input) => all?.find((item) => item.input === input));
    if (cell === undefined || items.some((item) => item === undefined)) {
      throw new XpatchError('RUN_MISMATCH', `Task ${work.task} of this machine lacks what was asked.`);
    }
    return {
      lines: await answerBatch(context, {
        study,
        cell,
        stage: work.stage,
        items: items.filter((item) => item !== undefined),
        conditions: conditionsOf(study, work.stage),
        layers: work.layers,
        vectors: await vectors.of(work.vectors),
        maxBytes: run.memory,
      }),
    };
  };
  try {
    // A server that is away leaves the question open; the run has ended only when it says so.
    while (!signal?.aborted && (await broker.redis.hget(RUNS, run.id)) !== null) {
      await wait(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
  } finally {
    await worker.close();
  }
  return done;
}

async function makeVector(study: Study, name: string, { context, foreign }: WorkOptions) {
  const wanted = vectorsOf(study).find((vector) => vector.name === name);
  if (wanted === undefined) throw new XpatchError('RUN_MISMATCH', `There is no vector ${name} in this experiment.`);
  return { vector: packVector(await readVector({ context, foreign }, study, wanted)) };
}

/** Vectors from the queue, the latest of them kept. */
class QueueVectors {
  private readonly kept = new Map<string, TaskVector>();

  constructor(
    private readonly broker: Broker,
    private readonly run: QueuedRun,
  ) {}

  async of(named: Readonly<Record<string, string>>) {
    const vectors = new Map<string, { name: string; vector: TaskVector }>();
    for (const [condition, name] of Object.entries(named))
      vectors.set(condition, { name, vector: await this.get(name) });
    return vectors;
  }

  private async get(name: string): Promise<TaskVector> {
    const vector = this.kept.get(name) ?? unpackVector(JSON.parse(await this.fetch(name)));
    this.kept.delete(name);
    this.kept.set(name, vector);
    const [oldest] = this.kept.keys();
    if (this.kept.size > 64 && oldest !== undefined) this.kept.delete(oldest);
    return vector;
  }

  private async fetch(name: string): Promise<string> {
    for (const until = Date.now() + VECTOR_MS; Date.now() < until; await wait(LOOK_MS)) {
      const text = await this.broker.redis.hget(vectorsOfRun(this.run.id), name);
      if (text !== null) return text;
    }
    throw new XpatchError('QUEUE_FAILED', `The queue has lost the vector ${name}. Start the run again.`);
  }
}

/**
 * What this machine computes with: the release of llama.cpp, the kind of device, and a hash of states at all layers of one fixed prompt.
 * Two machines with the same value compute identically to the last bit.
 */
async function kernelsOf(context: Context): Promise<string> {
  const { model } = context;
  const tokens = Array.from({ length: 24 }, (_, i) => (7 + 37 * i) % model.info.nVocab);
  const { states } = await context.run({
    prompt: await model.prompt({ tokens }),
    capture: { layers: 'all', positions: 'last' },
  });
  const { data } = states;
  const hash = createHash('sha256')
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest('hex');
  const gpus = listDevices().filter(({ type }) => type === 'gpu' || type === 'igpu');
  const device = model.options.device === 'cpu' || gpus.length === 0 ? 'CPU' : (gpus[0]?.backend ?? 'GPU');
  const servers = model.options.rpc?.length ? ' and RPC' : '';
  return `llama.cpp ${native().build.llamaTag}, ${device}${servers}, states ${hash.slice(0, 12)}`;
}

async function requireKernels({ redis }: Broker, { id, kernels }: QueuedRun, own: string): Promise<void> {
  if (kernels === 'any') return;
  await redis.set(kernelsOfRun(id), own, 'NX');
  const first = await redis.get(kernelsOfRun(id));
  if (first === null || first === own) return;
  await redis.hincrby(refusedOfRun(id), own, 1);
  const wayOut = 'Use machines of one kind, or start the run with --kernels any, which records what answered.';
  throw new XpatchError('RUN_MISMATCH', `The run is answered by ${first}, but this machine has ${own}. ${wayOut}`);
}
