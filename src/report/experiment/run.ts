import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readLines } from '../../experiment/lines.js';
import { type Manifest, type RunRecord, requireManifest } from '../../experiment/manifest.js';
import { changedFiles, loadRunVector, RESULTS_FILE, writeInto } from '../../experiment/run-files.js';
import type { RunFolder } from '../../experiment/run-folder.js';
import { isToMerge } from '../../experiment/shard.js';
import type { Experiment, ResultLine, RunLine } from '../../experiment/types.js';
import { type Check, type CheckedRun, check } from '../../experiment/verify.js';
import { counted, plural } from '../../util/counted.js';
import { XpatchError } from '../../util/errors.js';
import { readWhole } from '../../util/read-file.js';
import { RunLock } from '../../util/run-lock.js';
import type { Block, Report } from '../report.js';
import { findStudy } from '../studies.js';
import { provenanceOf, tableFiles, writeReport } from '../write-report.js';
import { experimentReport } from './report.js';

/**
 * The report of a run, from its manifest, lines and vectors alone: what its command writes, `report` rewrites, and `verify`
 * compares.
 * @throws {XpatchError} RUN_INVALID, VECTOR_INVALID, ABORTED
 */
async function reportOfRun(
  manifest: Manifest<object>,
  lines: readonly RunLine[],
  options: { loadVector: RunFolder['loadVector']; signal?: AbortSignal | undefined },
): Promise<Report> {
  const { notes, title, study, units = [] } = manifest;
  const about = { notes, title, provenance: provenanceOf(manifest) };
  if (study === undefined) {
    return experimentReport(manifest.options as Experiment, lines as ResultLine[], { ...about, ...options });
  }
  const { report } = await findStudy(study);
  const results = units.map((unit) => lines.find((line) => 'unit' in line && line.unit === unit));
  if (results.includes(undefined)) {
    const message = 'A part of the study is missing. Start its command again to resume it.';
    throw new XpatchError('RUN_INVALID', message);
  }
  try {
    return await report(results, manifest.options, { ...about, signal: options.signal });
  } catch (cause) {
    if (cause instanceof XpatchError) throw cause;
    const message = `The lines of the run are not those of the study ${study}: ${(cause as Error).message}.`;
    throw new XpatchError('RUN_INVALID', `${message} Put back the original lines, or start afresh.`, { cause });
  }
}

/**
 * Writes tables, figures and the page of a run whose lines are all there; of a complete run only when one of them is missing.
 * @throws {XpatchError} as `reportOfRun`; FILE_WRITE
 */
export async function writeRunReport<Line extends RunLine>(
  run: RunFolder<Line>,
  signal?: AbortSignal,
): Promise<Report> {
  const lines: RunLine[] = [];
  for await (const line of run.lines()) lines.push(line);
  const report = await reportOfRun(run.manifest, lines, { loadVector: (name) => run.loadVector(name), signal });
  const files = ['report.html', ...report.blocks.flatMap(filesOf)];
  if (!run.complete || files.some((file) => !existsSync(join(run.path, file)))) {
    await writeReport(run, report, { signal });
  }
  return report;
}

function filesOf(block: Block): string[] {
  if (block.kind === 'table' || block.kind === 'examples') return tableFiles(block).map(([name]) => `tables/${name}`);
  return ['svg', 'png', 'csv', 'json'].map((ending) => `figures/${block.name}.${ending}`);
}

/**
 * Rewrites tables, figures and page of a run, from its manifest, lines and vectors; those that were there go.
 * @throws {XpatchError} RUN_INVALID; RUN_BUSY; as `reportOfRun`; FILE_WRITE
 */
export async function rewriteReport(path: string, signal?: AbortSignal): Promise<Report> {
  const manifest = await requireManifest(path);
  using _lock = await RunLock.acquire(path);
  await requireUnchanged(path, manifest);
  const lines: RunLine[] = [];
  for await (const { line } of readLines<RunLine>(path)) lines.push(line);
  const loadVector = (name: string) => loadRunVector(path, name);
  const report = await reportOfRun(manifest, lines, { loadVector, signal });
  for (const folder of ['tables', 'figures']) await rm(join(path, folder), { recursive: true, force: true });
  await writeReport({ write: (name, content) => writeInto(path, name, content) }, report, { signal });
  return report;
}

/** The page of a complete run says that it is whole, so what it is made of must be. @throws {XpatchError} RUN_INVALID */
async function requireUnchanged(path: string, manifest: RunRecord): Promise<void> {
  if (manifest.status !== 'complete' || manifest.results === undefined) return;
  const changed = (await changedFiles(path, manifest)).find(
    (file) => file === RESULTS_FILE || existsSync(join(path, file)),
  );
  if (changed === undefined) return;
  const message = `${join(path, changed)} was changed after the run`;
  throw new XpatchError('RUN_INVALID', `${message}. Put back the original file, or run the command of the run again.`);
}

const TABLE = { what: 'the table', maxBytes: 64 << 20 } as const;

/** Whether the tables of a run, in all formats, are what its lines give. @throws {XpatchError} as `reportOfRun` */
export async function checkTables({ path, manifest, lines }: CheckedRun, signal?: AbortSignal): Promise<Check> {
  if (isToMerge(manifest)) {
    return { name: 'tables', state: 'not done', detail: 'a shard to be merged has none' };
  }
  const loadVector = (name: string) => loadRunVector(path, name);
  const { blocks } = await reportOfRun(manifest, lines, { loadVector, signal });
  const made = new Map<string, string>();
  for (const block of blocks) {
    if (block.kind !== 'table' && block.kind !== 'examples') continue;
    for (const [name, text] of tableFiles(block)) made.set(name, text);
  }
  const there = await readdir(join(path, 'tables')).catch(() => []);
  const problems: string[] = [];
  for (const name of new Set([...made.keys(), ...there])) {
    const text = (await readWhole(join(path, 'tables', name), TABLE).catch(() => undefined))?.toString('utf8');
    if (text === undefined) problems.push(`tables/${name} is missing`);
    else if (text !== made.get(name)) problems.push(`tables/${name} does not match the lines`);
  }
  return check(
    'tables',
    problems,
    `${counted(made.size, 'file')} that ${plural(made.size, 'matches', 'match')} the lines`,
  );
}
