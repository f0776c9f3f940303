import { readPicture } from '../../images/image.js';
import type { Table } from '../../stats/tables.js';
import { XpatchError } from '../../util/errors.js';
import { barsToSvg } from '../figures/bars.js';
import { figureToSvg } from '../figures/figure.js';
import { piesToSvg } from '../figures/pies.js';
import { scatterToSvg } from '../figures/scatter.js';
import { stepOf } from '../figures/steps.js';
import type { Block, TextTable, WorkedExample } from '../report.js';
import { formatCell, formatValue } from '../tables.js';
import { textHtml } from './text.js';

/**
 * The inside of a block below its heading and caption. Lenses are in lens.ts.
 *
 * @param phone Draw figures for phones too. Defaults to true.
 */
export async function blockBody(block: Exclude<Block, { kind: 'lens' }>, phone = true): Promise<string> {
  const drawn = (draw: (narrow: boolean) => string) => figureHtml(draw(false), phone ? draw(true) : undefined);
  switch (block.kind) {
    case 'table':
      return tableToHtml(block.table);
    case 'bars':
      return drawn((narrow) => barsToSvg(block.bars, 'text', narrow));
    case 'curves':
      return drawn((narrow) => figureToSvg(block.figure, 'text', narrow));
    case 'pies':
      return drawn((narrow) => piesToSvg(block.pies, 'text', narrow));
    case 'scatter':
      return drawn((narrow) => scatterToSvg(block.scatter, 'text', narrow));
    case 'examples':
      return `<div class="examples">${(await Promise.all(block.examples.map(exampleToHtml))).join('')}</div>`;
  }
}

/** What is wider than the page scrolls by itself, with the keyboard too. */
export const scrolling = (label: string, body: string): string =>
  `<div class="wide" tabindex="0" role="group" aria-label="${textHtml(label)}">${body}</div>`;

/** A figure; with one for phones the style sheet shows the one that fits the screen. */
const figureHtml = (wide: string, narrow: string | undefined): string =>
  narrow === undefined
    ? `<figure class="drawn">${wide}</figure><div class="tools"></div>`
    : `<figure class="drawn broad">${wide}</figure><figure class="drawn phone">${narrow}</figure><div class="tools"></div>`;

/** `value` is what a column is sorted by; a cell without one is sorted by its text. */
interface HtmlCell {
  readonly html: string;
  readonly value?: number;
  readonly missing?: boolean;
  /** Step of the colour scale. */
  readonly step?: number;
}

/** Letters that a column keeps on one line. */
const SHORT = 40;

function tableToHtml(table: Table | TextTable): string {
  const { heads, rows } = 'corner' in table ? measuredRows(table) : textRows(table);
  const numeric = heads.map((_, column) => rows.some((row) => row[column]?.value !== undefined));
  const short = heads.map((_, column) => rows.every((row) => (row[column]?.html.length ?? 0) <= SHORT));
  const side = (column: number) => (numeric[column] ? ' class="number"' : short[column] ? ' class="short"' : '');
  const head = heads.map((name, column) => `<th scope="col"${side(column)}>${textHtml(name)}</th>`).join('');
  const body = rows.map((row) => {
    const cells = row.map(({ html, value, missing, step }, column) => {
      const sort = missing ? ' data-missing' : value === undefined ? '' : ` data-value="${value}"`;
      return column === 0
        ? `<th scope="row"${side(0)}${sort}>${html}</th>`
        : `<td${step === undefined ? side(column) : ` class="number q${step}"`}${sort}>${html}</td>`;
    });
    return `<tr>${cells.join('')}</tr>`;
  });
  return [
    scrolling(
      table.title,
      `<table><caption>${textHtml(table.title)}</caption><thead><tr>${head}</tr></thead>\n<tbody>${body.join('\n')}</tbody></table>`,
    ),
    '<div class="tools"></div>',
    notesToHtml(table.notes),
  ].join('\n');
}

function measuredRows(table: Table): { heads: string[]; rows: HtmlCell[][] } {
  const rows = table.rows.map(({ label, cells }) => [
    { html: textHtml(label) },
    ...cells.map((cell): HtmlCell => {
      if (cell === undefined) return { html: formatCell(cell), missing: true };
      return { html: formatCell(cell).replace(/ (\[.*\])/, ' <small>$1</small>'), value: cell.value };
    }),
  ]);
  return { heads: [table.corner, ...table.columns], rows };
}

function textRows(table: TextTable): { heads: string[]; rows: HtmlCell[][] } {
  const [low, high] = table.shade ?? [0, 0];
  const rows = table.rows.map((row) =>
    row.map((value, column): HtmlCell => {
      const html = textHtml(formatValue(value, table.columns[column]?.digits));
      if (value === undefined) return { html, missing: true };
      if (typeof value !== 'number') return { html };
      if (high <= low || column === 0) return { html, value };
      return { html, value, step: stepOf((value - low) / (high - low)) };
    }),
  );
  return { heads: table.columns.map(({ name }) => name), rows };
}

export function notesToHtml(notes: readonly string[] = []): string {
  return notes.length > 0 ? `<ul class="notes">${notes.map((note) => `<li>${textHtml(note)}</li>`).join('')}</ul>` : '';
}

/** Answers of an example that it was chosen by: those of the prompt and of the patch. */
const COMPARED = 2;

async function exampleToHtml(example: WorkedExample): Promise<string> {
  const { cell, task, picture, query, expected, answers } = example;
  const image =
    picture === undefined
      ? ''
      : `<img src="${await pictureToDataUrl(picture)}" alt="${textHtml(query)}" width="96" height="96">`;
  const rows = answers.map(({ condition, answer, correct }) => {
    const verdict = correct ? '<td class="right">right</td>' : '<td class="wrong">wrong</td>';
    const said = answer === '' ? '<i>nothing</i>' : `<bdi>${textHtml(answer)}</bdi>`;
    return `<tr><th scope="row">${textHtml(condition)}</th><td class="answer">${said}</td>${verdict}</tr>`;
  });
  const table = (body: readonly string[]) =>
    [
      '<table><thead><tr><th scope="col">condition</th><th scope="col">answer</th><th scope="col">strict</th></tr></thead>',
      `<tbody>${body.join('')}</tbody></table>`,
    ].join('');
  const shown = cell === undefined ? rows.length : COMPARED;
  const others = rows.slice(shown);
  return [
    `<article class="example">${image}`,
    ...(cell === undefined ? [] : [`<p class="cell-name">${textHtml(cell)}</p>`]),
    `<h3>${textHtml(task)}</h3>`,
    `<p>Query <b><bdi>${textHtml(query)}</bdi></b><br>Expected <b><bdi>${textHtml(expected)}</bdi></b></p>`,
    table(rows.slice(0, shown)),
    ...(others.length > 0 ? [`<details><summary>${others.length} more</summary>${table(others)}</details>`] : []),
    '</article>',
  ].join('');
}

/** Re-encoded and at most 192 pixels wide: a report stays small, and nothing of the file but its pixels gets in. */
async function pictureToDataUrl(path: string): Promise<string> {
  const bytes = await readPicture(path);
  const { default: sharp } = await import('sharp');
  try {
    const png = await sharp(bytes).autoOrient().resize({ width: 192, withoutEnlargement: true }).png().toBuffer();
    return `data:image/png;base64,${png.toString('base64')}`;
  } catch (cause) {
    const message = `${path} is not a picture: ${(cause as Error).message}. Use PNG, JPEG, WebP or another common format.`;
    throw new XpatchError('IMAGE_INVALID', message, { cause });
  }
}
