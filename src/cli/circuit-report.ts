import { join } from 'node:path';
import type { Report, TextTable } from '../report/report.js';
import { tableToText } from '../report/tables.js';
import type { Session } from './common.js';
import { startRun } from './report-run.js';

/** What a command of `circuit` found. */
export interface Found {
  /** For --json and the run's manifest. */
  readonly result: object;
  readonly make: (given: Pick<Report, 'provenance'>) => Report;
}

/** Prints what was found, and writes a report if asked for. */
export async function writeCircuit(
  session: Session,
  args: { json: boolean; report?: string | undefined },
  { result, make }: Found,
): Promise<void> {
  const { terminal, model, progress } = session;
  const plain = make({ provenance: {} });
  if (args.report !== undefined) {
    const what = { experiment: 'circuit', title: plain.title, options: result };
    const run = await startRun(session, { output: args.report }, what);
    await run.finish(make({ provenance: run.provenance }));
  }
  progress.done();
  if (args.json) {
    return terminal.printJson({ ...result, model: model.identity, report: args.report });
  }
  const tables = plain.blocks.flatMap((block) => (block.kind === 'table' ? [block.table as TextTable] : []));
  for (const table of tables) terminal.print(`${tableToText(table, terminal)}\n`);
  if (args.report !== undefined) terminal.print(`Report: ${join(args.report, 'report.html')}\n`);
}
