import { memoryStore } from '../experiment/memory-store.js';
import type { RunStore, StudyLine } from '../experiment/types.js';
import type { Context } from '../model/context.js';
import type { PromptTemplate } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';

/** Which prompts of tasks a study reads. */
export interface TaskPromptOptions {
  /** Names of shipped tasks, or paths of task files. */
  tasks: readonly string[];
  /** Each draws its own items and examples. Defaults to `[1]`. */
  seeds?: readonly number[];
  /** Drawing style of the pictures. Defaults to `twemoji`. */
  style?: string;
  /** Examples in a prompt; where it asks about the last one, that is without its answer. Defaults to 5. */
  shots?: number;
  /** How prompts are written. Defaults to the paper's template. */
  template?: PromptTemplate;
}

/** @throws {XpatchError} INVALID_ARGUMENT unless the seeds are different whole numbers, at least one of them */
export function requireSeeds(seeds: readonly number[]): void {
  const whole = seeds.every((seed) => Number.isSafeInteger(seed) && seed >= 0);
  if (seeds.length > 0 && whole && new Set(seeds).size === seeds.length) return;
  const message = `Seeds are different whole numbers, at least one, not ${JSON.stringify(seeds)}.`;
  throw new XpatchError('INVALID_ARGUMENT', message);
}

/** What a part of a study is handed. */
interface UnitEvents<Result extends object> {
  /** Where vectors are kept, and found again. */
  readonly store: RunStore<Result & StudyLine>;
  readonly signal: AbortSignal | undefined;
  /** Told what part of the work is done, from 0 to 1. */
  readonly onProgress: (share: number) => void;
}

/** A part of a study's work: what a kill loses at most. */
export interface Unit<Result extends object> {
  /** Unique in its study. */
  readonly name: string;
  /**
   * @param before what came of the parts before it, in their order
   * @returns plain data, as written to the run's line
   */
  run(before: readonly Result[], events: UnitEvents<Result>): Promise<Result>;
}

/** The parts of a study in their order. Refuses what cannot run, before any pass. */
export type Study<Options extends object, Result extends object> = (
  context: Context,
  options: Options,
  events: Pick<UnitEvents<Result>, 'signal' | 'onProgress'>,
) => Promise<Unit<Result>[]>;

/** How a study is run. */
export interface StudyEvents<Result extends object> {
  /** Where results are kept, and found again by a resumed run. Defaults to memory. */
  store?: RunStore<Result & StudyLine>;
  signal?: AbortSignal | undefined;
  /** Parts done of all, with fractions, and what is being done. */
  onProgress?: (progress: { done: number; total: number; stage: string }) => void;
}

/** Runs a study: what the store knows already is not done again. @throws {XpatchError} as the study; ABORTED */
export async function runStudy<Options extends object, Result extends object>(
  study: Study<Options, Result>,
  context: Context,
  options: Options,
  events: StudyEvents<Result> = {},
): Promise<Result[]> {
  return runUnits(await study(context, options, preparing(events)), events);
}

/** What a study is handed before its parts are known. */
export function preparing({ signal, onProgress }: Omit<StudyEvents<never>, 'store'>) {
  return { signal, onProgress: (done: number) => onProgress?.({ done, total: 1, stage: 'reading prompts' }) };
}

/** Does the parts of a study that the store does not know yet. @returns what came of all of them, in their order */
export async function runUnits<Result extends object>(
  units: readonly Unit<Result>[],
  { store = memoryStore<Result & StudyLine>(), signal, onProgress }: StudyEvents<Result>,
): Promise<Result[]> {
  const known = new Map<string, Result & StudyLine>();
  for await (const line of store.lines()) known.set(line.unit, line);
  const results: Result[] = [];
  const { length: total } = units;
  for (const { name, run } of units) {
    const report = (share: number) => onProgress?.({ done: results.length + share, total, stage: name });
    if (signal?.aborted) throw new XpatchError('ABORTED', 'The study was aborted.', { cause: signal.reason });
    report(0);
    let line = known.get(name);
    if (line === undefined || store.lost?.has(line.vector ?? '')) {
      line = { unit: name, ...(await run(results, { store, signal, onProgress: report })) };
      await store.append([line]);
    }
    const { unit: _, ...result } = line;
    results.push(result as unknown as Result);
  }
  onProgress?.({ done: total, total, stage: units.at(-1)?.name ?? '' });
  return results;
}
