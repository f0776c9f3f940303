import { differenceOfResults } from '../experiment/compare.js';
import { describeRun, type RunDescription } from '../experiment/manifest.js';
import { memoryStore } from '../experiment/memory-store.js';
import { loadRunVector, loadSaved } from '../experiment/run-files.js';
import { RunFolder, requireRunFolder } from '../experiment/run-folder.js';
import { keyOf, type RunStore, type StudyLine } from '../experiment/types.js';
import { type AskOptions, type Check, type CheckedRun, check } from '../experiment/verify.js';
import type { Context } from '../model/context.js';
import { preparing, runUnits, type Study, type StudyEvents } from '../studies/study.js';
import { Random } from '../util/random.js';
import { writeRunReport } from './experiment/run.js';
import type { Report } from './report.js';
import { findStudy } from './studies.js';

/** How a study is run in a folder. */
export interface StudyRunOptions<Options extends object, Result extends object>
  extends Omit<RunDescription<Options>, 'plan' | 'units' | 'shard' | 'vectorModel' | 'signal'>,
    Omit<StudyEvents<Result>, 'store'> {
  /** Name of the study, as the manifest has it. */
  readonly study: string;
  /** Its parts. */
  readonly units: Study<Options, Result>;
  /** Called before the first pass. */
  readonly onOpen?: (run: RunFolder<Result & StudyLine>) => void;
  /** Called when all parts are done. */
  readonly onReport?: () => void;
}

/**
 * Runs a study into a folder: manifest, a line for each part, vectors, tables, figures and report. One that was interrupted resumes
 * where it was; a complete one is only reported.
 *
 * @throws {XpatchError} as the study, `RunFolder.open` and `writeReport`
 */
export async function runStudyInFolder<Options extends object, Result extends object>(
  context: Context,
  folder: string,
  options: StudyRunOptions<Options, Result>,
): Promise<{ results: Result[]; report: Report }> {
  const { units: study, onOpen, onReport, onProgress, ...about } = options;
  const { signal } = about;
  await requireRunFolder(folder); // before what takes a while
  const units = await study(context, about.options, preparing({ signal, onProgress }));
  const manifest = await describeRun(context, { ...about, units: units.map(({ name }) => name) });
  await using run = await RunFolder.open<Result & StudyLine>(folder, manifest);
  onOpen?.(run);
  const results = await runUnits(units, { store: run, signal, onProgress });
  onReport?.();
  if (!run.complete) await run.requireWhole();
  const report = await writeRunReport(run, signal);
  if (!run.complete) await run.finish({ headline: report.headline });
  return { results, report };
}

/**
 * Does some parts of a complete study again, with its own vectors, and compares what comes of them.
 *
 * @param options.sample one part for each 20, and at least one
 * @throws {XpatchError} as the study
 */
export async function repeatUnits(context: Context, run: CheckedRun, options: AskOptions): Promise<Check> {
  const { study = '', options: asked } = run.manifest;
  const { units: parts, repeatable = true } = await findStudy(study);
  if (!repeatable) return { name: 'answers', state: 'not done', detail: 'times are never the same twice' };
  const { signal, onProgress } = options;
  const units = await parts(context, { ...asked, tasks: run.tasks }, preparing({ signal }));
  const sample = new Random(options.seed, 'verify').sample(
    units,
    Math.min(Math.ceil(options.sample / 20), units.length),
  );
  const lines = new Map(run.lines.map((line) => [keyOf(line), line]));
  const store: RunStore<StudyLine> = {
    ...memoryStore<StudyLine>(),
    loadVector: (name) => loadRunVector(run.path, name),
    load: (name, open) => loadSaved(run.path, name, open),
  };
  const problems: string[] = [];
  for (const [i, unit] of sample.entries()) {
    const report = (share: number) => onProgress?.({ done: i + share, total: sample.length });
    report(0);
    const before = units.slice(0, units.indexOf(unit)).map(({ name }) => lines.get(name) as StudyLine);
    const { unit: _, ...recorded } = lines.get(unit.name) as StudyLine;
    const again: unknown = JSON.parse(JSON.stringify(await unit.run(before, { store, signal, onProgress: report })));
    const difference = differenceOfResults(recorded, again);
    if (difference !== undefined) problems.push(`${unit.name}: ${difference}`);
  }
  return check('answers', problems, `${sample.length} of ${units.length} parts done again: the same`);
}
