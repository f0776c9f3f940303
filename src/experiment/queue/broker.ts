import { XpatchError } from '../../util/errors.js';

/** The parts of BullMQ and ioredis that are used; they are loaded only for a queue. */
export interface Redis {
  ping(): Promise<string>;
  get(key: string): Promise<string | null>;
  set(key: string, value: string, mode: 'NX'): Promise<unknown>;
  del(...keys: string[]): Promise<unknown>;
  hget(key: string, field: string): Promise<string | null>;
  hset(key: string, field: string, value: string): Promise<unknown>;
  hdel(key: string, field: string): Promise<unknown>;
  hgetall(key: string): Promise<Record<string, string>>;
  hincrby(key: string, field: string, by: number): Promise<unknown>;
  on(event: 'error' | 'ready', listener: (error: Error) => void): unknown;
  disconnect(): void;
}

interface QueueJob {
  readonly id?: string;
  readonly data: unknown;
  readonly returnvalue: unknown;
  readonly failedReason?: string;
  remove(): Promise<unknown>;
}

export interface NewJob {
  readonly name: string;
  readonly data: unknown;
  readonly opts: { readonly jobId: string; readonly attempts: number; readonly backoff: number };
}

export interface Queue {
  addBulk(jobs: readonly NewJob[]): Promise<unknown>;
  getCompleted(start: number, end: number): Promise<(QueueJob | undefined)[]>;
  getFailed(start: number, end: number): Promise<(QueueJob | undefined)[]>;
  getJobCounts(): Promise<Record<string, number>>;
  obliterate(options: { force: boolean }): Promise<unknown>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  close(): Promise<unknown>;
}

export interface QueueWorker {
  on(event: 'error', listener: (error: Error) => void): unknown;
  close(force?: boolean): Promise<unknown>;
}

type Processor = (job: QueueJob) => Promise<unknown>;
type Connected = { connection: Redis; prefix: string };
interface WorkerOptions extends Connected {
  lockDuration: number;
  stalledInterval: number;
  maxStalledCount: number;
}
interface BullMq {
  Queue: new (name: string, options: Connected) => Queue;
  Worker: new (name: string, process: Processor, options: WorkerOptions) => QueueWorker;
}
interface IoRedis {
  Redis: new (url: string, options: object) => Redis;
}

/** Prefix of all keys. */
const PREFIX = 'xpatch';
const CONNECT_MS = 10_000;
/** A worker that is silent for this long is considered dead, and its batch is given to another. */
const SILENCE_MS = 10_000;
/** How many workers may die on a batch before it is given up. */
const DEATHS = 5;

/** A connection to a queue's server. */
export class Broker {
  private constructor(
    private readonly bullmq: BullMq,
    readonly redis: Redis,
  ) {}

  /**
   * @param url `redis://` or, with TLS, `rediss://`, with the password in it
   * @throws {XpatchError} INVALID_ARGUMENT; QUEUE_FAILED if the packages are not installed, or the server does not answer
   */
  static async open(url: string): Promise<Broker> {
    const place = addressOf(url);
    const [bullmq, ioredis] = await Promise.all([load<BullMq>('bullmq'), load<IoRedis>('ioredis')]);
    let problem = `no answer within ${CONNECT_MS / 1000} s`;
    // Without a bound on retries: it waits for a server that is restarted.
    const redis = new ioredis.Redis(url, {
      maxRetriesPerRequest: null,
      retryStrategy: (times: number) => Math.min(100 * times, 2000),
    });
    redis.on('error', ({ message }) => {
      problem = message;
    });
    const late = new Promise<'late'>((resolve) => setTimeout(resolve, CONNECT_MS, 'late').unref());
    const answer = await Promise.race([redis.ping(), late]).catch((error: Error) => error);
    if (answer === 'PONG') return new Broker(bullmq, redis);
    redis.disconnect();
    const why = answer instanceof Error ? answer.message : problem;
    const wayOut = 'Start a Redis or Valkey server there, and check the host, the port and the password.';
    throw new XpatchError('QUEUE_FAILED', `The queue at ${place} cannot be used: ${why}. ${wayOut}`);
  }

  queue(name: string): Queue {
    return quiet(new this.bullmq.Queue(name, { connection: this.redis, prefix: PREFIX }));
  }

  worker(name: string, process: Processor): QueueWorker {
    const times = { lockDuration: SILENCE_MS, stalledInterval: SILENCE_MS / 2, maxStalledCount: DEATHS };
    return quiet(new this.bullmq.Worker(name, process, { connection: this.redis, prefix: PREFIX, ...times }));
  }

  [Symbol.dispose](): void {
    this.redis.disconnect();
  }
}

/** Connects once, before work that would be lost without a server. @throws {XpatchError} as `Broker.open` */
export async function requireServer(url: string): Promise<void> {
  using _ = await Broker.open(url);
}

/** A server that is away for a while is not an error: commands wait for it. */
function quiet<T extends { on(event: 'error', listener: () => void): unknown }>(emitter: T): T {
  emitter.on('error', () => undefined);
  return emitter;
}

/** Where a queue is, without its password. @throws {XpatchError} INVALID_ARGUMENT */
export function addressOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^rediss?:$/.test(parsed.protocol) || parsed.hostname === '') {
    const example = 'redis://:PASSWORD@10.0.0.7:6379, or rediss:// with TLS';
    throw new XpatchError('INVALID_ARGUMENT', `A queue is given as the URL of a Redis server, such as ${example}.`);
  }
  return `${parsed.protocol}//${parsed.host}`;
}

async function load<T>(name: string): Promise<T> {
  try {
    return (await import(name)) as T;
  } catch (cause) {
    const message = `A queue needs BullMQ, which is not part of xpatch: ${(cause as Error).message}`;
    throw new XpatchError('QUEUE_FAILED', `${message}. Install it: npm install bullmq@6.7.0 ioredis@5.11.1`, { cause });
  }
}
