import { setTimeout as wait } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { ERROR_CODES, XpatchError, type XpatchErrorCode } from '../../util/errors.js';
import type { TaskVector } from '../../vectors/task-vector.js';
import type { Batch } from '../answer.js';
import type { Seat, Seats } from '../seats.js';
import type { Study } from '../study.js';
import { keyOf, type ResultLine } from '../types.js';
import type { WantedVector } from '../vectors.js';
import { addressOf, Broker, type NewJob, type Queue } from './broker.js';
import {
  idOf,
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
  workersOfRun,
} from './protocol.js';

/** How to use a queue. */
export interface QueueOptions {
  /** `redis://` or, with TLS, `rediss://`, with the password in it. */
  readonly url: string;
  readonly signal?: AbortSignal | undefined;
  /** Called with notes for whoever is waiting. */
  readonly onNote?: ((text: string) => void) | undefined;
}

interface Waiting {
  readonly work: QueuedWork;
  readonly resolve: (result: QueuedResult) => void;
  readonly reject: (error: unknown) => void;
}

/** Between two checks for answers. */
const LOOK_MS = 200;
/** Answers taken per check, and works handed over at once. */
const CHUNK = 200;
/** How often awaited work is handed over again: a restarted server may have lost its last second. */
const AGAIN_MS = 60_000;
/** If nobody takes anything for this long, the user is told how to start a worker. */
const IDLE_MS = 15_000;
/** How often failing work is tried, by any worker. */
const ATTEMPTS = 3;

/**
 * Seats on other machines: what is asked goes to a queue, from which `work` takes it. Nothing is lost if a worker, the server or this
 * process dies: a batch that has not come back is handed out again, what comes back twice counts once, and whoever starts the
 * run again collects what was answered meanwhile.
 */
export class QueueSeats implements Seats {
  readonly wide = true;
  private readonly waiting = new Map<string, Waiting>();
  /** Answers to what has not been asked yet, from an earlier process. */
  private readonly early = new Map<string, QueuedResult>();
  private readonly vectors = new Map<string, Promise<unknown>>();
  private readonly packed = new Map<string, string>();
  private failure: { error: unknown } | undefined;
  private unsent: NewJob[] = [];
  private sending: NodeJS.Immediate | undefined;
  private closing = false;
  /** How much each kind of worker has computed, by what it computes with; complete once the seats are closed. */
  answeredBy: Readonly<Record<string, number>> = {};
  /** Kinds of workers that were refused, and reported. */
  private readonly refused = new Set<string>();
  private readonly looking: Promise<void>;

  private constructor(
    private readonly broker: Broker,
    private readonly queue: Queue,
    private readonly run: QueuedRun,
    private readonly options: QueueOptions,
  ) {
    options.signal?.addEventListener('abort', this.onAbort);
    if (options.signal?.aborted) this.onAbort();
    this.looking = this.look().catch((error) => void this.fail(error));
  }

  /** @throws {XpatchError} as `Broker.open` */
  static async open(run: QueuedRun, options: QueueOptions): Promise<QueueSeats> {
    const broker = await Broker.open(options.url);
    const queue = broker.queue(queueOf(run.id));
    // What failed before may have been fixed.
    for (const job of await queue.getFailed(0, -1)) await job?.remove();
    await broker.redis.del(refusedOfRun(run.id));
    await broker.redis.hset(RUNS, run.id, JSON.stringify(run));
    return new QueueSeats(broker, queue, run, options);
  }

  /** What fails here, such as a full disk, ends the run at once: what has not been collected stays in the queue for the next start. */
  async each<T>(list: readonly T[], work: (element: T, index: number, seat: Seat) => Promise<void>): Promise<void> {
    const done = list.map((element, i) =>
      work(element, i, this.seat()).catch((error) => Promise.reject(this.fail(error))),
    );
    const results = await Promise.allSettled(done);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Nobody works on the run any longer, and nothing of it is left in the queue. */
  private async clear(): Promise<void> {
    const { redis } = this.broker;
    await redis.hdel(RUNS, this.run.id);
    await this.queue.obliterate({ force: true });
    await redis.del(...[vectorsOfRun, kernelsOfRun, refusedOfRun, workersOfRun].map((key) => key(this.run.id)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.closing = true;
    this.options.signal?.removeEventListener('abort', this.onAbort);
    await this.looking;
    const counts = await this.broker.redis.hgetall(workersOfRun(this.run.id));
    this.answeredBy = Object.fromEntries(Object.entries(counts).map(([by, n]) => [by, Number(n)]));
    if (!this.failure) await this.clear();
    await this.queue.close();
    this.broker[Symbol.dispose]();
  }

  private seat(): Seat {
    return {
      answer: (batch) => this.answer(batch),
      read: (study, wanted) => this.read(study, wanted),
    };
  }

  private async answer({ cell, stage, items, conditions, layers, vectors }: Batch): Promise<ResultLine[]> {
    const { task, seed } = cell.split;
    const named: Record<string, string> = {};
    for (const [condition, { name, vector }] of vectors) {
      named[condition] = name;
      await this.publish(name, vector);
    }
    const inputs = items.map(({ input }) => input);
    const asked = { stage, task: task.name, seed };
    const { lines = [] } = await this.ask({ kind: 'answers', ...asked, items: inputs, layers, vectors: named });
    const expected = conditions.flatMap(({ name: condition, kind }) =>
      inputs.flatMap((item) =>
        (kind === 'patch' ? (layers[condition] ?? []) : [undefined]).map((layer) =>
          keyOf({ ...asked, condition, item, layer }),
        ),
      ),
    );
    if (isDeepStrictEqual(lines.map(keyOf).sort(), expected.sort())) return [...lines];
    const message = `A worker answered different queries from those asked (${stage}, ${task.name}, seed ${seed})`;
    throw this.fail(new XpatchError('QUEUE_FAILED', `${message}. Install the same xpatch on all machines.`));
  }

  private async read(_: Study, wanted: WantedVector): Promise<TaskVector> {
    const vector = unpackVector((await this.ask({ kind: 'vector', name: wanted.name })).vector);
    const { hash } = (wanted.foreign ? this.run.vectorModel : this.run.model) ?? {};
    if (vector.info.model.hash === hash) return vector;
    throw this.fail(new XpatchError('QUEUE_FAILED', `A worker read the vector ${wanted.name} from another model.`));
  }

  /** Puts a vector where workers find it, once. */
  private publish(name: string, vector: TaskVector): Promise<unknown> {
    const before = this.vectors.get(name);
    if (before) return before;
    const text = JSON.stringify(packVector(vector));
    this.packed.set(name, text);
    const done = this.broker.redis.hset(vectorsOfRun(this.run.id), name, text);
    this.vectors.set(name, done);
    return done;
  }

  private ask(work: QueuedWork): Promise<QueuedResult> {
    if (this.failure) return Promise.reject(this.failure.error);
    const id = idOf(work);
    const early = this.early.get(id);
    if (early) {
      this.early.delete(id);
      return Promise.resolve(early);
    }
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { work, resolve, reject });
      this.unsent.push(jobOf(id, work));
      this.sending ??= setImmediate(() => void this.send().catch((error) => this.fail(error)));
    });
  }

  private async send(): Promise<void> {
    this.sending = undefined;
    const jobs = this.unsent;
    this.unsent = [];
    for (let i = 0; i < jobs.length; i += CHUNK) await this.queue.addBulk(jobs.slice(i, i + CHUNK));
  }

  /** Collects what is answered, until the seats are closed. */
  private async look(): Promise<void> {
    let [sent, moved, told] = [Date.now(), Date.now(), false];
    while (!this.closing && !this.failure) {
      const took = await this.collect();
      const counts = await this.queue.getJobCounts();
      const there = Object.values(counts).reduce((sum, n) => sum + n, 0);
      if (took > 0 || (counts.active ?? 0) > 0 || this.waiting.size === 0) moved = Date.now();
      if (!told && Date.now() - moved > IDLE_MS) {
        told = true;
        const how = `xpatch work ${addressOf(this.options.url)} -m MODEL`;
        this.options.onNote?.(`nobody is answering the queue; start a worker that has the model: ${how}`);
      }
      const lost = this.unsent.length === 0 && there < this.waiting.size;
      if (this.waiting.size > 0 && (lost || Date.now() - sent > AGAIN_MS)) {
        sent = Date.now();
        await this.sendAgain();
      }
      if (took === 0) await this.reportRefused();
      if (took < CHUNK) await wait(LOOK_MS);
    }
  }

  /** Without this a run would wait for a kind of worker that has left, and nobody would know. */
  private async reportRefused(): Promise<void> {
    const { redis } = this.broker;
    for (const kind of Object.keys(await redis.hgetall(refusedOfRun(this.run.id)))) {
      if (this.refused.has(kind)) continue;
      this.refused.add(kind);
      const problem = `a worker was refused: it has ${kind}, but ${await redis.get(kernelsOfRun(this.run.id))} began the run`;
      this.options.onNote?.(
        `${problem}; start one that computes as the first did, or this run again with --kernels any`,
      );
    }
  }

  private async collect(): Promise<number> {
    const [broken] = await this.queue.getFailed(0, 0);
    if (broken) throw errorOf(broken.failedReason ?? 'no reason is known');
    const jobs = (await this.queue.getCompleted(0, CHUNK - 1)).filter((job) => job !== undefined);
    for (const job of jobs) {
      const id = job.id as string;
      const result = job.returnvalue as QueuedResult;
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (waiting) waiting.resolve(result);
      else this.early.set(id, result);
      await job.remove();
      await this.broker.redis.hincrby(workersOfRun(this.run.id), String(result.by), 1);
    }
    return jobs.length;
  }

  private async sendAgain(): Promise<void> {
    const { redis } = this.broker;
    await redis.hset(RUNS, this.run.id, JSON.stringify(this.run));
    for (const [name, text] of this.packed) await redis.hset(vectorsOfRun(this.run.id), name, text);
    this.unsent.push(...[...this.waiting].map(([id, { work }]) => jobOf(id, work)));
    await this.send();
  }

  private readonly onAbort = () => {
    const message =
      'The run was interrupted. Workers continue with what is in the queue; start the run again to collect it.';
    this.fail(new XpatchError('ABORTED', message, { cause: this.options.signal?.reason }));
  };

  /** Ends everything that waits. @returns the error that ended it */
  private fail(error: unknown): unknown {
    this.failure ??= { error };
    for (const { reject } of this.waiting.values()) reject(this.failure.error);
    this.waiting.clear();
    return this.failure.error;
  }
}

const jobOf = (id: string, work: QueuedWork): NewJob => ({
  name: work.kind,
  data: work,
  opts: { jobId: id, attempts: ATTEMPTS, backoff: 1000 },
});

/** A worker's error, which begins with its code. */
function errorOf(reason: string): XpatchError {
  const [, code, message] = /^([A-Z_]+): ([\s\S]*)$/.exec(reason) ?? [];
  if (ERROR_CODES.includes(code as XpatchErrorCode)) {
    return new XpatchError(code as XpatchErrorCode, `${message} (from a worker of the queue, ${ATTEMPTS} times)`);
  }
  const stalled = /stalled/.test(reason)
    ? 'Workers die on one batch, one after the other: check their output and their memory.'
    : "Check the workers' output.";
  return new XpatchError('QUEUE_FAILED', `A batch of the queue was given up: ${reason}. ${stalled}`);
}
