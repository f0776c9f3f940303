import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExperimentManifest } from '../../experiment/manifest.js';
import { type ExperimentRun, loadRunVector } from '../../experiment/store.js';
import type { ResultLine } from '../../experiment/types.js';
import { type Check, type CheckedRun, check } from '../../experiment/verify.js';
import { readWhole } from '../../util/read-file.js';
import type { Block, Report } from '../report.js';
import { provenanceOf, type RunManifest, tableFiles, writeReport } from '../write-report.js';
import { experimentReport } from './report.js';

/**
 * The report of a run, from its manifest, lines and vectors alone: what `eval` and `merge` write, and `verify` makes again.
 * @throws {XpatchError} RUN_INVALID, VECTOR_INVALID, ABORTED
 */
export async function reportOfRun(
  manifest: ExperimentManifest,
  lines: readonly ResultLine[],
  options: { loadVector: ExperimentRun['loadVector']; signal?: AbortSignal | undefined },
): Promise<Report> {
  const { options: experiment, notes, title, vectorModel } = manifest;
  const provenance = {
    ...provenanceOf(manifest as unknown as RunManifest),
    ...(vectorModel && { 'model of the vectors': `${vectorModel.name}, sha256 ${vectorModel.hash}` }),
    seeds: experiment.seeds.join(', '),
  };
  return experimentReport(experiment, lines, { notes, provenance, title: String(title), ...options });
}

/**
 * Writes tables, figures and the page of a run whose lines are all there; of a complete run only when one of them is missing.
 * @throws {XpatchError} as `reportOfRun`; FILE_WRITE
 */
export async function writeRunReport(run: ExperimentRun, signal?: AbortSignal): Promise<Report> {
  const lines: ResultLine[] = [];
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

const TABLE = { what: 'the table', maxBytes: 64 << 20 } as const;

/** Whether the tables of a run, in all formats, are what its lines give. @throws {XpatchError} as `reportOfRun` */
export async function checkTables({ path, manifest, lines }: CheckedRun, signal?: AbortSignal): Promise<Check> {
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
    else if (text !== made.get(name)) problems.push(`tables/${name} is not what the lines give`);
  }
  return check('tables', problems, `${made.size} files, as the lines give them`);
}
