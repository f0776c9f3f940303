import { join } from 'node:path';
import { describeRun } from '../experiment/manifest.js';
import { requireEmpty } from '../experiment/run-folder.js';
import type { Report } from '../report/report.js';
import type { StudyRunOptions } from '../report/run-study.js';
import type { TaskPromptOptions } from '../studies/study.js';
import { counted } from '../util/counted.js';
import { makeFolder } from '../util/files.js';
import { requireNotAborted, type Session } from './common.js';
import { templateNotes } from './experiment.js';
import { shippedNotes } from './shipped-notes.js';
import type { Terminal } from './terminal.js';

/** `20261123-081500`, in UTC. */
export function timestamp(): string {
  return new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-');
}

/** Where to look, for the terminal. */
const summaryOf = (folder: string) => `Report: ${join(folder, 'report.html')}\n`;

/** Runs a study in the folder of `--output`, or resumes it there. */
export async function runStudyCommand<Options extends object, Result extends object>(
  { model, context, terminal, signal, progress }: Session,
  args: { readonly output?: string },
  what: Pick<StudyRunOptions<Options, Result>, 'units' | 'title' | 'options' | 'tasks' | 'pictures' | 'inputs'> & {
    study: string;
    options: Partial<TaskPromptOptions>;
  },
): Promise<{ folder: string; results: Result[]; summary: string }> {
  // Not imported at the top: --help needs no report.
  const { runStudyInFolder } = await import('../report/run-study.js');
  const folder = args.output ?? `xpatch-${what.study}-${timestamp()}`;
  const command = commandWith(terminal, folder);
  const { results } = await runStudyInFolder(context, folder, {
    tasks: what.options.tasks,
    style: what.options.style,
    ...what,
    experiment: what.study,
    command,
    notes: [...shippedNotes(model), ...templateNotes(what.options.template)],
    signal,
    onOpen: ({ notes, known, complete }) => {
      terminal.explainInterrupt(`What is done is kept in ${folder}; resume with: ${command}`);
      for (const note of notes) progress.note(note);
      if (complete) progress.note(`${folder} is complete: there is nothing left to do`);
      else if (known.size > 0) progress.note(`resuming ${folder}: it already has ${counted(known.size, 'part')}`);
    },
    onProgress: ({ done, total, stage }) => progress.update(stage, done / total),
    onReport: () => progress.update('writing the report'),
  });
  progress.done();
  return { folder, results, summary: summaryOf(folder) };
}

/** A page that is written after the work. */
interface ReportRun {
  folder: string;
  provenance: Report['provenance'];
  /** Writes the report with its tables, figures and what has to be said of a shipped model. @throws XpatchError ABORTED, FILE_WRITE. */
  finish(report: Report): Promise<void>;
  /** Where to look, for the terminal. */
  summary(): string;
}

/** Before the work of a command that makes its report afterwards. @throws XpatchError as `startRun` */
export async function requireReport(folder: string | undefined): Promise<void> {
  if (folder === undefined) return;
  await requireEmpty(folder);
  await makeFolder(folder);
}

/** Before the work, so that a bad `--output` is found early. @throws XpatchError FILE_WRITE if the folder is not empty */
export async function startRun(
  { model, context, terminal, signal, progress }: Session,
  args: { readonly output?: string },
  what: { experiment: string; title: string; options: object },
): Promise<ReportRun> {
  const { ReportPage } = await import('../report/lens-report.js');
  const { provenanceOf } = await import('../report/write-report.js');
  const folder = args.output ?? `xpatch-${what.experiment}-${timestamp()}`;
  await requireReport(folder);
  const manifest = await describeRun(context, { ...what, command: terminal.commandLine() });
  return {
    folder,
    provenance: provenanceOf(manifest),
    async finish(report) {
      requireNotAborted(signal);
      progress.update('writing the report');
      await new ReportPage({ caveats: shippedNotes(model), ...report }, manifest).save(folder, { signal });
      progress.done();
    },
    summary: () => summaryOf(folder),
  };
}

/** The command line as given, with the folder added, so that it resumes the run. */
export function commandWith(terminal: Terminal, folder: string | undefined): string {
  // What resumes a run must not refuse it.
  const isResume = (arg: string | undefined) => /^--(no-)?resume(=|$)/.test(arg ?? '');
  const given = terminal.args.filter(
    (arg, i, all) => !isResume(arg) && !(isResume(all[i - 1]) && /^(true|false)$/.test(arg)),
  );
  const named = given.some((arg) => /^(-o|--output|--report)(=|$)/.test(arg));
  const args = folder === undefined || named ? given : [...given, '-o', folder];
  return terminal.commandLine(args);
}
