import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { counted } from '../../util/counted.js';
import { scrolling } from '../page/blocks.js';
import { builtFile } from '../page/page.js';
import { textHtml } from '../page/text.js';
import { visibleText } from '../visible.js';
import type { Run } from './runs.js';

const LONGEST = 300;
const COLUMNS = ['run', 'experiment', 'model', 'status', 'started', 'size'];

/** What the list needs beyond the style of the reports. */
const STYLE = `
body { max-width: none; }
th, td { padding: .4rem 1rem .4rem 0; vertical-align: top; }
td { white-space: nowrap; }
tbody th { min-width: 9rem; max-width: 34rem; white-space: normal; overflow-wrap: anywhere; }
tbody p, details { font-size: .87rem; }
.quiet-text, small, summary { color: var(--muted); font-weight: 400; }
tbody th a { font-weight: 600; }
.headline { font-size: .87rem; font-weight: 400; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.problem, .broken { color: var(--bad); }
summary { cursor: pointer; }
@media (max-width: 40rem) {
  .wide > table { width: auto; }
  thead { position: absolute; clip-path: inset(50%); }
  table, tbody, tr, tbody th { display: block; }
  tr { padding-block: .6rem; border-bottom: 1px solid var(--grid); }
  tbody th, tbody td, tbody td.number { max-width: none; padding: 0; border: 0; white-space: normal; }
  tbody td { display: inline; color: var(--muted); font-size: .87rem; }
  tbody td:not(:last-child)::after { content: " · "; }
}
`;

/** A string of a manifest or a file's name, as HTML: cut, made visible, escaped, and kept from turning its line round. */
function show(text: string): string {
  const characters = [...text];
  const cut = characters.length > LONGEST ? `${characters.slice(0, LONGEST).join('')}…` : text;
  return cut === '' ? '' : `<bdi>${textHtml(cut)}</bdi>`;
}

/** Where a file of a run is served. */
const fileUrl = (id: string, file: string) => `/runs/${id}/${file.split('/').map(encodeURIComponent).join('/')}`;

/**
 * The list of runs, the last one first, with the Content-Security-Policy that it is to be served with.
 *
 * @throws {XpatchError} FILE_NOT_FOUND before the build
 */
export async function indexPage(runs: readonly Run[]): Promise<{ html: string; policy: string }> {
  const style = (await builtFile('client.css')) + STYLE;
  const sorted = [...runs].sort((a, b) => (a.started > b.started ? -1 : 1));
  const heads = COLUMNS.map((name) => `<th scope="col"${name === 'size' ? ' class="number"' : ''}>${name}</th>`);
  const table = `<table><thead><tr>${heads.join('')}</tr></thead><tbody>\n${sorted.map(row).join('\n')}\n</tbody></table>`;
  const html = [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>xpatch: ${counted(runs.length, 'run')}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body><main><h1>Runs</h1>',
    runs.length > 0 ? scrolling('Runs', table) : '<p>They have gone. Run a command, then reload.</p>',
    '</main></body>',
    '</html>',
    '',
  ].join('\n');
  const hash = createHash('sha256').update(style).digest('base64');
  const policy = `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
  return { html, policy };
}

function row(run: Run): string {
  const { id, path, state, problem, prompt, headline, files } = run;
  const title = show(run.title);
  const name = basename(path) === run.title ? '' : ` <small>${show(basename(path))}</small>`;
  const links = files.map((file) => `<li><a href="${fileUrl(id, file)}">${show(file)}</a></li>`);
  const paragraph = (kind: string, html: string) => (html === '' ? '' : `<p class="${kind}">${html}</p>`);
  const said = [
    paragraph('quiet-text', prompt && `<code>${show(visibleText(prompt))}</code>`),
    paragraph('headline', show(headline)),
    paragraph(problem === undefined ? 'quiet-text' : 'problem', problem === undefined ? noteOf(run) : show(problem)),
  ];
  const cells = [
    `<th scope="row">${run.hasReport ? `<a href="${fileUrl(id, 'report.html')}">${title}</a>` : title}${name}${said.join('')}`,
    `<details><summary>files</summary><p>${show(path)}</p><ul>${links.join('')}</ul></details></th>`,
    `<td>${show(run.experiment)}</td>`,
    `<td>${show(run.model)}</td>`,
    `<td class="${state}">${state}</td>`,
    `<td>${timeOf(run)}</td>`,
    `<td class="number">${bytesOf(run.bytes)}</td>`,
  ];
  return `<tr id="${id}">${cells.join('')}</tr>`;
}

function noteOf({ state, part }: Run): string {
  if (part !== undefined) return `Part ${show(part)}: merge all parts for tables and a report.`;
  if (state === 'complete') return '';
  if (state === 'running') return 'Not finished: reload later. A run that was killed stays like this.';
  return 'It ended before its report.';
}

function timeOf({ started }: Run): string {
  const time = new Date(started);
  if (started === '' || Number.isNaN(time.getTime())) return show(started);
  const iso = time.toISOString();
  return `<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC</time>`;
}

function bytesOf(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 999_500 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
