import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { XpatchError } from '../../util/errors.js';
import { PACKAGE_ROOT } from '../../util/package-root.js';
import { scaleRules } from '../figures/colour-scale.js';
import type { Block, Report } from '../report.js';
import { notesToHtml } from './blocks.js';
import { fitBlocks, type PageBlock, pageBlock } from './fit.js';
import { type FittedLens, fitLenses } from './lens-data.js';
import type { EncodedLens } from './lens-encoding.js';
import { json, textHtml } from './text.js';

/** Bytes that a page may have, without what frames its blocks. */
const LIMIT = 4_880_000;
/** Bytes kept for a lens when blocks are fitted: what is left of the page is for lenses. */
const LENS = 200_000;

/**
 * A report as one HTML file that needs nothing else: styles, script, figures, pictures and numbers are inside, nothing is
 * loaded. Without its script it is still whole but for the interaction. Stays under 5 MB: where there is no room it leaves
 * out parts of blocks (`fitBlocks`); of a lens it takes fewer of the best tokens, then only the last positions. It says so.
 *
 * @throws {XpatchError} FILE_NOT_FOUND or IMAGE_INVALID for the picture of an example; NOT_FINITE or INVALID_ARGUMENT for
 *   numbers that cannot be shown, and for a report that is too large without its tables and figures
 */
export async function reportToHtml(report: Report): Promise<string> {
  const { title, introduction, caveats = [] } = report;
  const blocks = report.blocks.map((block) => withoutNotes(block, caveats));
  const [script, styles] = await Promise.all([builtFile('client.js'), builtFile('client.css')]);
  const style = `${styles}\n${scaleRules()}`;
  const parts: PageBlock[] = [];
  for (const [i, block] of blocks.entries()) parts.push(await pageBlock(block, report.blocks[i] as Block));
  const lensBlocks = blocks.filter((block) => block.kind === 'lens');
  const rest = [script, style, JSON.stringify(report.provenance), ...introduction, ...caveats];
  const room = LIMIT - rest.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  const budget = room - (await fitBlocks(parts, room - LENS * lensBlocks.length));
  if (budget < 0) {
    const message = `The report "${title}" would be larger than 5 MB without its tables and figures. Split it, or use fewer pictures.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const fitted = await fitLenses(
    lensBlocks.map((block) => block.lens),
    budget,
  );
  const lenses = new Map(lensBlocks.map(({ name }, i) => [name, fitted[i] as FittedLens]));
  const encoded: Record<string, EncodedLens> = {};
  for (const [name, { data }] of lenses) encoded[name] = data;

  const hash = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
  const policy = `default-src 'none'; img-src data:; style-src ${hash(style)}; script-src ${hash(script)}; base-uri 'none'; form-action 'none'`;
  const shown = blocks.filter(({ detail }) => !detail);
  const details = shown.length < blocks.length ? [{ name: 'details', heading: 'Details' }] : [];
  const nav = [...shown, ...details].map(({ name, heading }) => {
    return `<li><a href="#${textHtml(name)}">${textHtml(heading)}</a></li>`;
  });
  const sections = parts.map((part) => {
    return section(part.block, part.body, cutNote(lenses.get(part.block.name)) || leftOutNote(part));
  });
  const tables = Object.fromEntries(parts.flatMap(({ block, copies }) => (copies ? [[block.name, copies]] : [])));
  const maps = Object.fromEntries(parts.flatMap(({ block, map }) => (map === undefined ? [] : [[block.name, map]])));
  const firstDetail = blocks.findIndex(({ detail }) => detail);
  if (firstDetail >= 0) sections.splice(firstDetail, 0, '<h2 id="details" class="details">Details</h2>');
  return `${[
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    `<title>${textHtml(title)}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body>',
    '<a class="skip" href="#content">Skip to the content</a>',
    `<header><div class="page-tools"></div><h1>${textHtml(title)}</h1>`,
    ...introduction.map((paragraph) => `<p>${textHtml(paragraph)}</p>`),
    ...(nav.length > 1 ? [`<nav aria-label="Contents"><ul>${nav.join('')}</ul></nav>`] : []),
    '</header>',
    '<main id="content" tabindex="-1">',
    ...sections,
    ...caveatsToHtml(caveats),
    provenance(report),
    '</main>',
    `<script type="application/json" id="page-data">${json({ tables, lenses: encoded, maps })}</script>`,
    `<script>${script}</script>`,
    '</body>',
    '</html>',
  ].join('\n')}\n`;
}

/** What is said once for the page is not said again under its tables. */
function withoutNotes(block: Block, said: readonly string[]): Block {
  if (block.kind !== 'table' || !block.table.notes.some((note) => said.includes(note))) return block;
  return { ...block, table: { ...block.table, notes: block.table.notes.filter((note) => !said.includes(note)) } };
}

function caveatsToHtml(caveats: readonly string[]): string[] {
  if (caveats.length === 0) return [];
  return [
    '<section class="caveats" aria-labelledby="caveats-heading"><h2 id="caveats-heading">Caveats</h2>',
    `${notesToHtml(caveats)}</section>`,
  ];
}

function section({ name, heading, caption, detail }: Block, body: string, note: string): string {
  const said = [caption, note].filter((text) => text !== undefined && text !== '') as string[];
  const paragraphs = said.map((text) => `<p class="caption">${textHtml(text)}</p>`);
  const id = textHtml(name);
  if (detail) {
    return [
      `<section id="${id}" class="detail" aria-labelledby="${id}-heading"><details>`,
      `<summary><h3 id="${id}-heading">${textHtml(heading)}</h3></summary>`,
      ...paragraphs,
      body,
      '</details></section>',
    ].join('\n');
  }
  return [
    `<section id="${id}" aria-labelledby="${id}-heading">`,
    `<h2 id="${id}-heading">${textHtml(heading)}</h2>`,
    ...paragraphs,
    body,
    '</section>',
  ].join('\n');
}

/** What of a lens the page had no room for. */
export function cutNote(lens: FittedLens | undefined): string {
  if (lens === undefined) return '';
  const { view, nRanks, first, data } = lens;
  const nPositions = view.lens.positions.length;
  const parts = [
    ...(first > 0 ? [`the last ${nPositions - first} of ${nPositions} positions`] : []),
    ...(data.ranks.length < nRanks ? [`the best ${data.ranks.length} of ${nRanks} tokens`] : []),
  ];
  if (parts.length === 0) return '';
  return `To stay under 5 MB this page holds ${parts.join(' and ')} of each cell; the JSON file of the run holds all.`;
}

function leftOutNote({ leftOut, file }: PageBlock): string {
  if (leftOut.length === 0) return '';
  return `To stay under 5 MB this page leaves out ${leftOut.join(' and ')}; beside it is ${file}.`;
}

function provenance({ provenance: facts }: Report): string {
  const rows = Object.entries(facts).map(
    ([key, value]) => `<tr><th scope="row">${textHtml(key)}</th><td>${textHtml(String(value))}</td></tr>`,
  );
  return [
    '<section class="provenance" aria-labelledby="provenance-heading"><h2 id="provenance-heading">How to repeat this</h2>',
    `<table><tbody>${rows.join('')}</tbody></table></section>`,
  ].join('\n');
}

/** A style sheet or script that the build made. @throws {XpatchError} FILE_NOT_FOUND before the build */
export async function builtFile(name: string): Promise<string> {
  const path = join(PACKAGE_ROOT, 'dist', 'report', 'page', name);
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new XpatchError('FILE_NOT_FOUND', `${path} is missing. In a clone, run \`npm run build\`.`, { cause });
  }
}
