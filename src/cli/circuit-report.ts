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

/** Prints what was found, then writes a report if asked for: a page that cannot be written must not lose what took long to find. */
export async function writeCircuit(
  session: Session,
  args: { json: boolean; report?: string | undefined },
  { result, make }: Found,
): Promise<void> {
  const { terminal, model, progress } = session;
  const plain = make({ provenance: {} });
  progress.done();
  if (args.json) terminal.printJson({ ...result, model: model.identity, report: args.report });
  else {
    const tables = plain.blocks.flatMap((block) => (block.kind === 'table' ? [block.table as TextTable] : []));
    for (const table of tables) terminal.print(`${tableToText(table, terminal)}\n`);
  }
  if (args.report !== undefined) {
    const what = { experiment: 'circuit', title: plain.title, options: result };
    const run = await startRun(session, { output: args.report }, what);
    await run.finish(make({ provenance: run.provenance }));
    if (!args.json) terminal.print(run.summary());
  }
}
