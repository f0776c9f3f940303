import type { PassOptions } from '../model/context.js';
import type { OnProgress } from '../model/types.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { answerBatch, type Batch } from './answer.js';
import { type Lane, Lanes } from './lanes.js';
import { readVector } from './read-vector.js';
import type { Study } from './study.js';
import type { ResultLine } from './types.js';
import type { WantedVector } from './vectors.js';

/** Where one thing of a run is computed at a time. */
export interface Seat {
  answer(batch: Batch, onProgress: OnProgress): Promise<ResultLine[]>;
  /** A vector that is read from its prompts. */
  read(study: Study, vector: WantedVector, events: PassOptions): Promise<TaskVector>;
}

/** What computes a run: contexts of this process, or a queue that other machines work on. */
export interface Seats extends AsyncDisposable {
  /** Whether there is room for everything at once, so that cells do not wait for each other. */
  readonly wide: boolean;
  /** As `Lanes.each`. */
  each<T>(list: readonly T[], work: (element: T, index: number, seat: Seat) => Promise<void>): Promise<void>;
}

/** A seat at a context of this process. */
export function seatAt(lane: Lane): Seat {
  return {
    answer: (batch, onProgress) => answerBatch(lane.context, batch, onProgress),
    read: (study, vector, events) => readVector(lane, study, vector, events),
  };
}

/** Seats in this process: one per context. @throws {XpatchError} as `Model.createContext` */
export async function localSeats(first: Lane, count: number): Promise<Seats> {
  const lanes = await Lanes.open(first, count);
  const seats = new Map<Lane, Seat>();
  const seatOf = (lane: Lane) => {
    const seat = seats.get(lane) ?? seatAt(lane);
    seats.set(lane, seat);
    return seat;
  };
  return {
    wide: false,
    each: (list, work) => lanes.each(list, (element, index, lane) => work(element, index, seatOf(lane))),
    [Symbol.asyncDispose]: () => lanes[Symbol.asyncDispose](),
  };
}
