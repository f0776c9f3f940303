import type { Manifest } from '../experiment/manifest.js';
import type { RunFolder } from '../experiment/run-folder.js';
import { XpatchError } from '../util/errors.js';
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

/** What the page says about repeating a run. */
export function provenanceOf(manifest: Manifest<object>): Report['provenance'] {
  const { command, model, vectorModel, xpatch, llamaCpp, started, options } = manifest;
  const { seed, seeds } = options as { seed?: number; seeds?: readonly number[] };
  return {
    command,
    model: `${model.name}, sha256 ${model.hash}`,
    ...(model.mmproj === undefined ? {} : { 'picture encoder': `sha256 ${model.mmproj}` }),
    ...(model.imageWidth === undefined ? {} : { 'pictures scaled to width': `${model.imageWidth}` }),
    xpatch: String(xpatch),
    'llama.cpp': String(llamaCpp),
    started,
    ...(vectorModel && { 'model of the vectors': `${vectorModel.name}, sha256 ${vectorModel.hash}` }),
    ...(seed !== undefined && { seed }),
    ...(seeds && { seeds: seeds.join(', ') }),
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
  folder: Pick<RunFolder, 'write'>,
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
      const problem = `${JSON.stringify(name)} cannot name a block: use a new name of lower-case letters, digits and hyphens.`;
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

async function writeFigure(
  folder: Pick<RunFolder, 'write'>,
  block: Exclude<Block, { kind: 'table' | 'examples' }>,
): Promise<void> {
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
