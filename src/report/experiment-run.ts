import type { ExperimentManifest } from '../evaluation/experiment/manifest.js';
import type { ExperimentRun } from '../evaluation/experiment/store.js';
import type { ResultLine } from '../evaluation/experiment/types.js';
import { experimentReport } from './experiment.js';
import type { Report } from './report.js';
import { provenanceOf, type RunManifest, writeReport } from './write-report.js';

/**
 * The report of a run, from its manifest, lines and vectors alone: what `eval` and `merge` write, and `verify` makes again.
 * @throws {XpatchError} RUN_INVALID, VECTOR_INVALID, ABORTED
 */
export async function reportOfRun(
  manifest: ExperimentManifest,
  lines: readonly ResultLine[],
  options: { loadVector: ExperimentRun['loadVector']; signal?: AbortSignal | undefined },
): Promise<Report> {
  const { options: experiment, notes, title } = manifest;
  const provenance = { ...provenanceOf(manifest as unknown as RunManifest), seeds: experiment.seeds.join(', ') };
  return experimentReport(experiment, lines, { notes, provenance, title: String(title), ...options });
}

/** Writes tables, figures and the page of a run whose lines are all there. @throws {XpatchError} as `reportOfRun`; FILE_WRITE */
export async function writeRunReport(run: ExperimentRun, signal?: AbortSignal): Promise<Report> {
  const lines: ResultLine[] = [];
  for await (const line of run.lines()) lines.push(line);
  const report = await reportOfRun(run.manifest, lines, { loadVector: (name) => run.loadVector(name), signal });
  await writeReport(run, report, { signal });
  return report;
}
