import {
  type AnsweredQuery,
  type MainTableEvents,
  type MainTableOptions,
  type MainTableResult,
  runMainTable,
} from '../evaluation/main-table.js';
import { RunFolder } from '../evaluation/run-folder.js';
import type { Table } from '../evaluation/tables.js';
import type { Context } from '../model/index.js';
import { loadTask } from '../tasks/task.js';
import { mainTableReport, mainTables, sweepFigure, workedExamples } from './main-table.js';
import type { WorkedExample } from './report.js';
import { describeRun, provenanceOf, writeReport } from './write-report.js';

export interface MainTableRun extends MainTableResult {
  folder: string;
  answers: AnsweredQuery[];
  tables: Table[];
  examples: WorkedExample[];
}

export interface MainTableRunOptions {
  /** Command line that made the run, for the manifest. */
  command: string;
  /** Said under every table, e.g. what the model was trained on. */
  notes: readonly string[];
}

/**
 * Runs the main table and writes a folder with everything that it gives and that repeating it takes: manifest, answers,
 * vectors, tables, the layer sweep (figure, counts by seed) and a report that opens from disk.
 *
 * @throws XpatchError FILE_WRITE; otherwise as `runMainTable`.
 */
export async function writeMainTableRun(
  context: Context,
  path: string,
  options: MainTableOptions,
  { command, notes }: MainTableRunOptions,
  events: Pick<MainTableEvents, 'signal' | 'onProgress'> = {},
): Promise<MainTableRun> {
  const manifest = {
    ...(await describeRun(context, {
      experiment: 'main-table',
      title: `Cross-modal patching with ${context.model.identity.name}`,
      command,
      options,
      tasks: options.tasks,
    })),
    hook: 'resid_post',
    operation: 'replace, last prompt token, prefill only',
  };
  const folder = await RunFolder.create(path, manifest);
  const answers: AnsweredQuery[] = [];
  const result = await runMainTable(context, options, {
    ...events,
    onVector: (name, vector) => folder.saveVector(name, vector),
    onAnswers: async (some) => {
      answers.push(...some);
      await folder.append(some);
    },
  });

  const tables = mainTables(answers, options, [
    ...notes,
    `Patches at layer ${result.layer} (0-based block output), chosen on validation items: mean of the patch conditions.`,
  ]);
  const { sweep, prompts } = result;
  // The counts by seed, which the figure pools.
  await folder.write('sweep.json', `${JSON.stringify({ sweep, prompts }, null, 1)}\n`);
  const pictures = await picturePaths(options);
  const examples = workedExamples(answers, options, (task, item) => pictures.get(`${task}\n${item}`));
  const report = mainTableReport(
    { tables, figure: sweepFigure(result, options), examples },
    {
      title: manifest.title,
      introduction: notes,
      provenance: { ...provenanceOf(manifest), seeds: options.seeds.join(', ') },
    },
  );
  await writeReport(folder, report, { signal: events.signal });
  await folder.writeManifest({
    ...manifest,
    status: 'complete',
    finished: new Date().toISOString(),
    layer: result.layer,
  });
  return { ...result, folder: path, answers, tables, examples };
}

async function picturePaths(options: MainTableOptions): Promise<Map<string, string>> {
  const paths = new Map<string, string>();
  if (options.queries !== 'image') return paths;
  for (const name of options.tasks) {
    const task = await loadTask(name, { pictures: true, style: options.style });
    for (const { input, image } of task.items) if (image) paths.set(`${name}\n${input}`, image);
  }
  return paths;
}
