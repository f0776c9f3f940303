import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Manifest, RunFolder } from '../experiment/run-folder.js';
import type { Context } from '../model/context.js';
import { listDevices, native } from '../native/index.js';
import { hashPictures } from '../tasks/hash-pictures.js';
import { loadTask } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { barsToSvg } from './figures/bars.js';
import { figureToSvg } from './figures/figure.js';
import { heatmapToSvg } from './figures/heatmap.js';
import { patchesOf } from './figures/patches.js';
import { pictureToSvg } from './figures/picture.js';
import { piesToSvg } from './figures/pies.js';
import { svgToPng } from './figures/png.js';
import { scatterToSvg } from './figures/scatter.js';
import { barsToCsv, examplesToTable, figureToCsv, lensToCsv, lensToJson, piesToCsv, scatterToCsv } from './numbers.js';
import { reportToHtml } from './page/page.js';
import type { Block, Report } from './report.js';
import { tableToCsv, tableToLatex, tableToMarkdown, tableToText } from './tables.js';

/** What a run is described by. */
export interface RunDescription {
  /** What was run: the command, e.g. `lens`. */
  experiment: string;
  title: string;
  /** Command line that made the run. */
  command: string;
  /** What the command line said, with the defaults filled in. */
  options: object;
  /** Names of the shipped tasks that take part, whose hashes are recorded. Defaults to none. */
  tasks?: readonly string[];
  /** Drawing style of the pictures, where those of the tasks take part: their hashes are recorded too. Defaults to no pictures. */
  pictureStyle?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** Of a run that has just begun. Its parts beyond `Manifest` are for people and for repeating the run. */
export type RunManifest = Awaited<ReturnType<typeof describeRun>>;

/** The manifest that all commands share: what is run, with what, on what. Write it again with status `complete` at the end. */
export async function describeRun(context: Context, description: RunDescription) {
  const { experiment, title, command, options, tasks: names = [], pictureStyle: style, signal } = description;
  const { version } = JSON.parse(await readFile(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string };
  const tasks = await Promise.all(
    names.map(async (source) => {
      const task = await loadTask(source, { pictures: style !== undefined, style });
      const pictures = task.pictures && { pictures: await hashPictures(task, signal) };
      return [task.name, { sha256: task.hash, items: task.items.length, ...pictures }] as const;
    }),
  );
  const { identity, files, options: loaded, projectorHash } = context.model;
  // A language model has no pictures that could be scaled.
  const pictures = projectorHash === undefined ? {} : { mmproj: projectorHash, imageWidth: loaded.imageWidth };
  return {
    status: 'running',
    experiment,
    title,
    xpatch: version,
    llamaCpp: native().build.llamaTag,
    build: native().build.mode,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    devices: listDevices().map(({ name, description }) => ({ name, description })),
    command,
    started: new Date().toISOString(),
    model: { ...identity, files, device: loaded.device, threads: loaded.threads, ...pictures },
    context: context.options,
    options,
    tasks: Object.fromEntries(tasks),
  } satisfies Manifest;
}

/** What the page says about repeating a run. */
export function provenanceOf({ command, model, xpatch, llamaCpp, started }: RunManifest): Report['provenance'] {
  return {
    command,
    model: `${model.name}, sha256 ${model.hash}`,
    ...(model.mmproj === undefined ? {} : { 'picture encoder': `sha256 ${model.mmproj}` }),
    ...(model.imageWidth === undefined ? {} : { 'pictures scaled to width': `${model.imageWidth}` }),
    xpatch,
    'llama.cpp': llamaCpp,
    started,
  };
}

/**
 * Writes everything that a report has to show: for every figure NAME.svg, .png, .csv and .json in figures/, for every table
 * NAME.txt, .md, .csv and .tex in tables/ (worked examples are one too), NAME.picture-1.svg and .png for a picture
 * in a lens, then report.html, which shows all of them.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for names that are not file names or occur twice, or numbers that cannot be drawn;
 *   FILE_WRITE; ABORTED between two blocks
 */
export async function writeReport(
  folder: RunFolder,
  report: Report,
  { signal }: { signal?: AbortSignal | undefined } = {},
): Promise<void> {
  requireNames(report.blocks);
  for (const block of report.blocks) {
    if (signal?.aborted) throw new XpatchError('ABORTED', 'The report was not finished.', { cause: signal.reason });
    if (block.kind !== 'table' && block.kind !== 'examples') await writeFigure(folder, block);
    else for (const [name, text] of tableFiles(block)) await folder.write(`tables/${name}`, text);
  }
  await folder.write('report.html', await reportToHtml(report));
}

function requireNames(blocks: readonly Block[]): void {
  const seen = new Set<string>();
  for (const { name } of blocks) {
    if (/^[a-z0-9][a-z0-9-]{0,63}$/.test(name) && !seen.has(name)) seen.add(name);
    else {
      const problem = `${JSON.stringify(name)} cannot name a block: it must be new, of small letters, digits and hyphens.`;
      throw new XpatchError('INVALID_ARGUMENT', problem);
    }
  }
}

/** What is in tables/ for a table or worked examples: names and texts. */
export function tableFiles(block: Extract<Block, { kind: 'table' | 'examples' }>): [string, string][] {
  const { name } = block;
  const table = block.kind === 'table' ? block.table : examplesToTable(block.heading, block.examples);
  return [
    [`${name}.txt`, tableToText(table)],
    [`${name}.md`, tableToMarkdown(table)],
    [`${name}.csv`, tableToCsv(table)],
    [`${name}.tex`, tableToLatex(table)],
  ];
}

async function writeFigure(folder: RunFolder, block: Exclude<Block, { kind: 'table' | 'examples' }>): Promise<void> {
  const { svg, csv, json } = filesOf(block);
  await folder.write(`figures/${block.name}.svg`, svg);
  await folder.write(`figures/${block.name}.png`, await svgToPng(svg));
  await folder.write(`figures/${block.name}.csv`, encoded(csv));
  await folder.write(`figures/${block.name}.json`, encoded(json));
  if (block.kind !== 'lens') return;
  for (const [i, picture] of block.lens.pictures.entries()) {
    if (patchesOf(block.lens, picture).length === 0) continue;
    const drawn = await pictureToSvg(block.lens, picture);
    await folder.write(`figures/${block.name}.picture-${i + 1}.svg`, drawn);
    await folder.write(`figures/${block.name}.picture-${i + 1}.png`, await svgToPng(drawn));
  }
}

function filesOf(block: Exclude<Block, { kind: 'table' | 'examples' }>) {
  const json = (value: unknown) => [`${JSON.stringify(value, null, 1)}\n`];
  switch (block.kind) {
    case 'bars':
      return { svg: barsToSvg(block.bars), csv: barsToCsv(block.bars), json: json(block.bars) };
    case 'curves':
      return { svg: figureToSvg(block.figure, 'outlines'), csv: figureToCsv(block.figure), json: json(block.figure) };
    case 'pies':
      return { svg: piesToSvg(block.pies, 'outlines'), csv: piesToCsv(block.pies), json: json(block.pies) };
    case 'scatter': {
      const { scatter } = block;
      return { svg: scatterToSvg(scatter, 'outlines'), csv: scatterToCsv(scatter), json: json(scatter) };
    }
    case 'lens':
      return { svg: heatmapToSvg(block.lens), csv: lensToCsv(block.lens), json: lensToJson(block.lens) };
  }
}

/** In chunks of about 64 kB: few writes, little memory. */
function* encoded(parts: Iterable<string>): Iterable<Uint8Array> {
  const encoder = new TextEncoder();
  let text = '';
  for (const part of parts) {
    text += part;
    if (text.length < 65536) continue;
    yield encoder.encode(text);
    text = '';
  }
  yield encoder.encode(text);
}
