import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type AnsweredQuery,
  type MainTableEvents,
  type MainTableOptions,
  type MainTableResult,
  runMainTable,
} from '../evaluation/main-table.js';
import { type Manifest, RunFolder } from '../evaluation/run-folder.js';
import type { Table } from '../evaluation/tables.js';
import { type Context, listDevices } from '../model/index.js';
import { native } from '../native/index.js';
import { PACKAGE_ROOT } from '../package-root.js';
import { loadTask } from '../tasks/task.js';
import { figureToSvg } from './figure.js';
import { reportToHtml, type WorkedExample } from './html.js';
import { mainTables, sweepFigure, workedExamples } from './main-table.js';
import { figureToPng } from './png.js';
import { tableToCsv, tableToMarkdown, tableToText } from './tables.js';

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
 * vectors, tables (text, Markdown, CSV), the layer sweep (SVG, PNG, JSON) and a report that opens from disk.
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
  const manifest = await describeRun(context, options, command);
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
  for (const [table, name] of [
    [tables[0], 'lenient'],
    [tables[1], 'strict'],
  ] as [Table, string][]) {
    await folder.write(`tables/${name}.txt`, tableToText(table));
    await folder.write(`tables/${name}.md`, tableToMarkdown(table));
    await folder.write(`tables/${name}.csv`, tableToCsv(table));
  }
  const figure = sweepFigure(result, options);
  await folder.write('figures/layer-sweep.svg', figureToSvg(figure));
  await folder.write('figures/layer-sweep.png', await figureToPng(figure));
  const { sweep, prompts } = result;
  await folder.write('figures/layer-sweep.json', `${JSON.stringify({ sweep, prompts }, null, 1)}\n`);

  const pictures = await picturePaths(options);
  const examples = workedExamples(answers, options, (task, item) => pictures.get(`${task}\n${item}`));
  const finished = {
    ...manifest,
    status: 'complete' as const,
    finished: new Date().toISOString(),
    layer: result.layer,
  };
  await folder.write(
    'report.html',
    await reportToHtml({
      title: `Cross-modal patching with ${context.model.identity.name}`,
      introduction: notes,
      tables,
      figures: [{ svg: figureToSvg(figure), caption: 'Layer sweep on validation items.' }],
      examples,
      provenance: {
        command,
        model: `${context.model.identity.name}, sha256 ${context.model.identity.hash}`,
        xpatch: manifest.xpatch,
        'llama.cpp': manifest.llamaCpp,
        seeds: options.seeds.join(', '),
        date: finished.finished,
      },
    }),
  );
  await folder.writeManifest(finished);
  return { ...result, folder: path, answers, tables, examples };
}

async function describeRun(context: Context, options: MainTableOptions, command: string) {
  const { version } = JSON.parse(await readFile(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };
  const tasks = await Promise.all(options.tasks.map((name) => loadTask(name)));
  const { identity, files, options: loaded } = context.model;
  return {
    status: 'running',
    experiment: 'main-table',
    xpatch: version,
    llamaCpp: native().build.llamaTag,
    build: native().build.mode,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    devices: listDevices().map(({ name, description }) => ({ name, description })),
    command,
    started: new Date().toISOString(),
    model: { ...identity, files, device: loaded.device, threads: loaded.threads, mmproj: context.model.projectorHash },
    context: context.options,
    options,
    hook: 'resid_post',
    operation: 'replace, last prompt token, prefill only',
    tasks: Object.fromEntries(tasks.map(({ name, hash, items }) => [name, { sha256: hash, items: items.length }])),
  } satisfies Manifest;
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
