import { createHash } from 'node:crypto';
import type { ContextOptions } from '../../model/context-options.js';
import type { ModelIdentity } from '../../model/types.js';
import { XpatchError } from '../../util/errors.js';
import { TaskVector } from '../../vectors/task-vector.js';
import type { Experiment, QueryKey, ResultLine } from '../types.js';

/** A model by the content of its files. */
export interface QueuedModel extends ModelIdentity {
  /** SHA-256 of the picture encoder. */
  readonly mmproj?: string;
  readonly imageWidth?: number;
}

/** What a worker has to know about a run; it has the files of the model and tasks itself. */
export interface QueuedRun {
  /** SHA-256 over everything that answers depend on. */
  readonly id: string;
  readonly title: string;
  readonly experiment: Experiment;
  readonly model: QueuedModel;
  /** Of `foreign` conditions. */
  readonly vectorModel?: QueuedModel;
  /** By name. */
  readonly tasks: Readonly<Record<string, { readonly sha256: string; readonly pictures?: string }>>;
  readonly context: Readonly<ContextOptions>;
  /** Bound on the logits held at a time, bytes. */
  readonly memory: number;
  /** Whether all workers must compute the same to the last bit. */
  readonly kernels: Kernels;
}

/** `same`: workers that compute differently from the first are refused; `any`: they are only recorded. */
export const KERNELS = ['same', 'any'] as const;
export type Kernels = (typeof KERNELS)[number];

/** One thing to compute: what has to be computed together, and no more. */
export type QueuedWork =
  | { readonly kind: 'vector'; readonly name: string }
  | {
      readonly kind: 'answers';
      readonly stage: QueryKey['stage'];
      readonly task: string;
      readonly seed: number;
      /** Inputs of items. */
      readonly items: readonly string[];
      readonly layers: Readonly<Record<string, readonly number[]>>;
      /** Names of vectors by condition. */
      readonly vectors: Readonly<Record<string, string>>;
    };

/** What comes back. */
export interface QueuedResult {
  /** What computed it, see `kernelsOf`. */
  readonly by: string;
  readonly lines?: readonly ResultLine[];
  readonly vector?: PackedVector;
}

export interface PackedVector {
  readonly info: TaskVector['info'];
  /** Base64 of 32-bit floats, little-endian. */
  readonly data: string;
}

/** The same for the same work, so that nothing is in a queue twice. */
export function idOf(work: QueuedWork): string {
  return `w${createHash('sha256').update(JSON.stringify(work)).digest('hex').slice(0, 40)}`;
}

/** Name of the queue of a run. */
export const queueOf = (id: string) => id.slice(0, 24);

/** Hash of runs by their id, as JSON. */
export const RUNS = 'xpatch-runs';
/** Hash of packed vectors by name. */
export const vectorsOfRun = (id: string) => `xpatch-run:${queueOf(id)}:vectors`;
/** What the first worker of a run computes with. */
export const kernelsOfRun = (id: string) => `xpatch-run:${queueOf(id)}:kernels`;
/** Hash of how often each kind of worker was refused. */
export const refusedOfRun = (id: string) => `xpatch-run:${queueOf(id)}:refused`;
/** Hash of how much each kind of worker has computed. */
export const workersOfRun = (id: string) => `xpatch-run:${queueOf(id)}:workers`;

export function packVector(vector: TaskVector): PackedVector {
  const floats = vector.toArray();
  const bytes = Buffer.alloc(4 * floats.length);
  for (const [i, value] of floats.entries()) bytes.writeFloatLE(value, 4 * i);
  return { info: vector.info, data: bytes.toString('base64') };
}

/** @throws {XpatchError} VECTOR_INVALID */
export function unpackVector(packed: unknown): TaskVector {
  const { info, data } = (packed ?? {}) as Partial<PackedVector>;
  if (info?.model === undefined || !Array.isArray(info.layers) || typeof data !== 'string') {
    throw new XpatchError(
      'VECTOR_INVALID',
      'What the queue holds is not a task vector. Clear it, and start the run again.',
    );
  }
  const bytes = Buffer.from(data, 'base64');
  return new TaskVector(
    info,
    Float32Array.from({ length: Math.floor(bytes.length / 4) }, (_, i) => bytes.readFloatLE(4 * i)),
  );
}
