import { join } from 'node:path';
import { type Manifest, RunFolder } from '../experiment/run-folder.js';
import type { Report } from '../report/report.js';
import { requireNotAborted, type Session } from './common.js';

/** `20261123-081500`, in UTC. */
export function timestamp(): string {
  return new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-');
}

/**
 * A run folder from before the work, so that a bad `--output` is found early, to the report after it. Its manifest says so when the
 * work ends without one.
 */
export interface ReportRun extends AsyncDisposable {
  folder: string;
  /** For what a run keeps in addition to its report: a line a result, vectors. */
  files: RunFolder;
  provenance: Report['provenance'];
  /** Writes the report with its tables and figures. @throws XpatchError ABORTED, FILE_WRITE. */
  finish(report: Report): Promise<void>;
  /** Where to look, for the terminal. */
  summary(): string;
}

/** @throws XpatchError FILE_WRITE when the folder cannot be made or holds something already. */
export async function startRun(
  { context, terminal, signal, progress }: Session,
  args: { readonly output?: string },
  what: { experiment: string; title: string; options: object; tasks?: readonly string[] },
): Promise<ReportRun> {
  // Not imported at the top: --help needs no report.
  const { describeRun, provenanceOf, writeReport } = await import('../report/write-report.js');
  const folder = args.output ?? `xpatch-${what.experiment}-${timestamp()}`;
  const manifest = await describeRun(context, { ...what, command: terminal.commandLine() });
  const run = await RunFolder.create(folder, manifest);
  const end = (status: Manifest['status'], more: object = {}) =>
    run.writeManifest({ ...manifest, status, finished: new Date().toISOString(), ...more });
  let finished = false;
  terminal.explainInterrupt(`What there is of it is in ${folder}: remove it, or name another folder, to run it again.`);
  return {
    folder,
    files: run,
    provenance: provenanceOf(manifest),
    async finish(report) {
      requireNotAborted(signal);
      progress.update('writing the report');
      await run.requireWhole();
      await writeReport(run, report, { signal });
      await end('complete', { headline: report.headline });
      finished = true;
      progress.done();
    },
    // A disk that takes no more must not hide what went wrong.
    [Symbol.asyncDispose]: async () =>
      finished ? undefined : end(signal.aborted ? 'interrupted' : 'failed').catch(() => undefined),
    summary: () => `Report: ${join(folder, 'report.html')}\n`,
  };
}
