import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { XpatchError } from '../errors.js';
import type { Table } from '../evaluation/tables.js';
import { escapeXml } from './svg.js';
import { formatCell } from './tables.js';

/** One query, answered without and with the patch. */
export interface WorkedExample {
  readonly task: string;
  /** Path of the query's picture; left out for a text query. */
  readonly picture?: string;
  /** What the query shows, e.g. `peru.png` or `Peru`. */
  readonly query: string;
  readonly expected: string;
  readonly answers: readonly { readonly condition: string; readonly answer: string; readonly correct: boolean }[];
}

export interface Report {
  readonly title: string;
  /** Paragraphs under the title. */
  readonly introduction: readonly string[];
  readonly tables: readonly Table[];
  /** Finished SVG from `figureToSvg`, put in as it is. */
  readonly figures: readonly { readonly svg: string; readonly caption: string }[];
  readonly examples: readonly WorkedExample[];
  /** What is needed to repeat the run: command, versions, hashes, seeds. */
  readonly provenance: Readonly<Record<string, string | number>>;
}

const STYLE = `
body { font: 16px/1.5 sans-serif; color: #222; background: #fff; max-width: 76rem; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; font-size: .85rem; } .wide { overflow-x: auto; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #666; vertical-align: bottom; }
caption { text-align: left; font-weight: bold; padding-bottom: .5rem; }
td small, .notes, figcaption { color: #666; } .notes { font-size: .85rem; padding-left: 1.2rem; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1rem; }
.example { border: 1px solid #e3e3e3; border-radius: 6px; padding: 1rem; overflow-wrap: anywhere; }
.example img { width: 96px; height: 96px; object-fit: contain; float: right; image-rendering: auto; }
.example h3 { margin: 0 0 .5rem; font-size: 1rem; } .example dl { margin: 0; clear: both; }
dt { color: #666; font-size: .85rem; } dd { margin: 0 0 .4rem; font-family: monospace; white-space: pre-wrap; }
.provenance td { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; font-family: monospace; }
`;

/**
 * One HTML file that needs nothing else: styles, figures and pictures are inside, no script, no network.
 * @throws {XpatchError} FILE_NOT_FOUND or IMAGE_INVALID for the picture of an example
 */
export async function reportToHtml(report: Report): Promise<string> {
  const text = escapeXml;
  const examples = await Promise.all(report.examples.map(exampleToHtml));
  const provenance = Object.entries(report.provenance).map(
    ([key, value]) => `<tr><th>${text(key)}</th><td>${text(String(value))}</td></tr>`,
  );
  const section = (title: string, body: string[]) => (body.length > 0 ? [`<h2>${title}</h2>`, ...body] : []);
  const out = [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">`,
    `<title>${text(report.title)}</title>`,
    `<style>${STYLE}</style>`,
    '</head>',
    '<body>',
    `<h1>${text(report.title)}</h1>`,
    ...report.introduction.map((paragraph) => `<p>${text(paragraph)}</p>`),
    ...section('Results', report.tables.map(tableToHtml)),
    ...section(
      'Figures',
      report.figures.map(({ svg, caption }) => `<figure>${svg}<figcaption>${text(caption)}</figcaption></figure>`),
    ),
    ...section('Worked examples', examples.length > 0 ? ['<div class="examples">', ...examples, '</div>'] : []),
    ...section('How to repeat this', ['<div class="wide"><table class="provenance">', ...provenance, '</table></div>']),
    '</body>',
    '</html>',
  ];
  return `${out.join('\n')}\n`;
}

function tableToHtml(table: Table): string {
  const row = (cells: string[]) => `<tr>${cells.join('')}</tr>`;
  const heads = [table.corner, ...table.columns].map((name) => `<th scope="col">${escapeXml(name)}</th>`);
  const rows = table.rows.map(({ label, cells }) => {
    const numbers = cells.map((cell) => `<td>${formatCell(cell).replace(/ (\[.*\])/, '<br><small>$1</small>')}</td>`);
    return row([`<th scope="row">${escapeXml(label)}</th>`, ...numbers]);
  });
  const notes = table.notes.map((note) => `<li>${escapeXml(note)}</li>`);
  return [
    `<div class="wide"><table><caption>${escapeXml(table.title)}</caption>`,
    `<thead>${row(heads)}</thead>`,
    `<tbody>${rows.join('\n')}</tbody>`,
    `</table></div><ul class="notes">${notes.join('')}</ul>`,
  ].join('\n');
}

async function exampleToHtml(example: WorkedExample): Promise<string> {
  const { task, picture, query, expected, answers } = example;
  const image = picture === undefined ? '' : `<img src="${await pictureToDataUrl(picture)}" alt="${escapeXml(query)}">`;
  const pairs = answers.map(({ condition, answer, correct }) => {
    const verdict = correct ? 'right' : 'wrong';
    return `<dt>${escapeXml(condition)} (${verdict})</dt><dd>${escapeXml(answer) || '(nothing)'}</dd>`;
  });
  const facts = `<p>Query: ${escapeXml(query)}<br>Expected: ${escapeXml(expected)}</p>`;
  return `<div class="example">${image}<h3>${escapeXml(task)}</h3>${facts}<dl>${pairs.join('')}</dl></div>`;
}

/** Re-encoded and at most 192 pixels wide: a report stays small, and nothing of the file but its pixels gets in. */
async function pictureToDataUrl(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    const message = `Cannot read the picture ${path}: ${(cause as Error).message}. Check the path.`;
    throw new XpatchError('FILE_NOT_FOUND', message, { cause });
  }
  try {
    const png = await sharp(bytes).autoOrient().resize({ width: 192, withoutEnlargement: true }).png().toBuffer();
    return `data:image/png;base64,${png.toString('base64')}`;
  } catch (cause) {
    const message = `${path} is not a picture: ${(cause as Error).message}. Use PNG, JPEG, WebP or another common format.`;
    throw new XpatchError('IMAGE_INVALID', message, { cause });
  }
}
