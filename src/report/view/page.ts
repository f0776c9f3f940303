import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { textHtml } from '../page/text.js';
import { visibleText } from '../visible.js';
import { type Difference, isNumber, type MergedTable } from './compare.js';
import type { Run } from './runs.js';
import { COMPARE_SCRIPT } from './style.js';

/** A page before it gets its style. */
export interface ViewPage {
  readonly title: string;
  /** HTML. */
  readonly body: readonly string[];
  readonly script?: string;
}

const LONGEST = 300;
/** More would only be slow to read and to draw. */
const MOST_DIFFERENCES = 500;
/** Where there is no value. */
const MISSING = '–';
const SORTS = ['title', 'experiment', 'model', 'status', 'started', 'size'] as const;

/** A string of a manifest, a file or a request, as HTML: cut, made visible, escaped, and kept from turning its line round. */
function show(text: string): string {
  const characters = [...text];
  const cut = characters.length > LONGEST ? `${characters.slice(0, LONGEST).join('')}…` : text;
  return cut === '' ? '' : `<bdi>${textHtml(cut)}</bdi>`;
}

const runUrl = ({ id }: Run, file = '') => `/runs/${id}/${file.split('/').map(encodeURIComponent).join('/')}`;
const nameOf = (run: Run) => (basename(run.path) === run.title ? '' : show(basename(run.path)));
const titleOf = (run: Run) => `${show(run.title)} <small>${nameOf(run)}</small>`;
const hash = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** A page as HTML, with the Content-Security-Policy that it is to be served with. */
export function renderPage({ title, body, script }: ViewPage, style: string): { html: string; policy: string } {
  const out = [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<title>${textHtml(title)}</title>`,
    `<style>${style}</style>`,
    '</head>',
    '<body>',
    ...body,
    ...(script === undefined ? [] : [`<script>${script}</script>`]),
    '</body>',
    '</html>',
  ];
  const scripts = script === undefined ? "'none'" : hash(script);
  const rest = "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'";
  const policy = `default-src 'none'; style-src ${hash(style)}; script-src ${scripts}; ${rest}`;
  return { html: `${out.join('\n')}\n`, policy };
}

const back = '<nav aria-label="Up"><a href="/">All runs</a></nav>';

/** A table may be wider than the screen: it scrolls by itself, with the keyboard too. */
const scrolling = (label: string, kind: string, lines: readonly string[]) =>
  `<div class="wide ${kind}" role="group" aria-label="${label}" tabindex="0"><table>\n${lines.join('\n')}\n</table></div>`;

/** The list of runs. `sort` is the name of a column, with a dash in front for the other direction. */
export function indexPage(runs: readonly Run[], sort: string): ViewPage {
  const key = SORTS.find((name) => name === sort.replace(/^-/, '')) ?? 'started';
  const sign = sort.startsWith('-') ? -1 : 1;
  const value = (run: Run) => (key === 'size' ? run.bytes : key === 'status' ? run.state : run[key]);
  const sorted = [...runs].sort((a, b) => sign * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
  const heads = SORTS.map((name) => {
    const [next, order] = sign === 1 ? [`-${name}`, 'ascending'] : [name, 'descending'];
    const sorting = name === key ? ` aria-sort="${order}"` : '';
    const side = name === 'size' ? ' class="number"' : '';
    return `<th scope="col"${side}${sorting}><a href="/?sort=${name === key ? next : name}">${name}</a></th>`;
  });
  const choosing = runs.length > 1;
  const [first, second] = [...sorted].sort((a, b) => Number(b.hasReport) - Number(a.hasReport));
  const table = scrolling('Runs', 'list', [
    `<thead><tr>${choosing ? '<th scope="col">left</th><th scope="col">right</th>' : ''}${heads.join('')}</tr></thead>`,
    '<tbody>',
    ...sorted.map((run) => {
      const radios = choosing ? radio('left', run, run === first) + radio('right', run, run === second) : '';
      return `<tr>${radios}${listCells(run)}</tr>`;
    }),
    '</tbody>',
  ]);
  const form = [
    '<form action="/compare">',
    '<p>Open a run, or choose two: <button class="compare">Compare side by side</button></p>',
    table,
    '</form>',
  ];
  const list = choosing ? form : runs.length > 0 ? [table] : ['<p>They have gone. Run a command, then reload.</p>'];
  const body = ['<main>', '<h1>Runs</h1>', ...list, '</main>'];
  return { title: `xpatch: ${runs.length} run${runs.length === 1 ? '' : 's'}`, body };
}

function radio(side: 'left' | 'right', run: Run, checked: boolean): string {
  const label = `${side}: ${textHtml(run.title)}`;
  const state = checked ? ' checked' : '';
  return `<td class="choice"><input type="radio" name="${side}" value="${run.id}" aria-label="${label}" required${state}></td>`;
}

function listCells(run: Run): string {
  const title = show(run.title);
  const link = run.hasReport ? `<a href="${runUrl(run, 'report.html')}">${title}</a>` : title;
  const files = `<a href="${runUrl(run)}">files<span class="visually-hidden"> of ${title}</span></a>`;
  return [
    `<th scope="row">${link}<br><small>${nameOf(run)} ${files}</small>${said(run)}${stateNote(run)}</th>`,
    `<td>${show(run.experiment)}</td>`,
    `<td>${show(run.model)}</td>`,
    `<td class="${run.state}">${run.state}</td>`,
    `<td>${timeOf(run)}</td>`,
    `<td class="number">${bytesOf(run.bytes)}</td>`,
  ].join('');
}

/** What was asked, and what came out. */
function said({ prompt, headline }: Run): string {
  const asked = prompt === '' ? '' : `<p class="quiet-text"><code>${show(visibleText(prompt))}</code></p>`;
  return asked + (headline === '' ? '' : `<p class="headline">${show(headline)}</p>`);
}

function stateNote(run: Run): string {
  if (run.problem !== undefined) return `<p class="problem">${show(run.problem)}</p>`;
  if (run.state === 'complete') return '';
  const note =
    run.state === 'running'
      ? 'Not finished: reload later. A run that was killed stays like this.'
      : 'It ended before its report.';
  return `<p class="quiet-text">${note}</p>`;
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

/** One run: its state and its files. */
export function runPage(run: Run, files: readonly string[]): ViewPage {
  const facts = Object.entries({ folder: run.path, command: run.manifest.command, status: run.state });
  const body = [
    back,
    '<main>',
    `<h1>${show(run.title)}</h1>`,
    stateNote(run),
    '<dl>',
    ...facts.map(([name, value]) => `<dt>${name}</dt><dd>${typeof value === 'string' ? show(value) : '–'}</dd>`),
    '</dl>',
    '<h2>Files</h2>',
    '<ul class="files">',
    ...files.map((name) => `<li><a href="${runUrl(run, name)}">${show(name)}</a></li>`),
    '</ul>',
    '</main>',
  ];
  return { title: `xpatch: ${run.title}`, body };
}

/** What went wrong with a request. */
export function problemPage(code: string, message: string): ViewPage {
  const body = [back, '<main>', '<h1>Nothing to show</h1>', `<p>${show(`${code}: ${message}`)}</p>`, '</main>'];
  return { title: 'xpatch: nothing to show', body };
}

/** What the page of two runs shows. */
export interface Comparison {
  readonly left: Run;
  readonly right: Run;
  readonly differences: readonly Difference[];
  /** Tables of the same name; without `merged` where rows or columns differ. */
  readonly tables: readonly { readonly name: string; readonly merged?: MergedTable }[];
  /** Ids of the blocks of each report. */
  readonly blocks: { readonly left: readonly string[]; readonly right: readonly string[] };
}

/** Two runs side by side. */
export function comparePage({ left, right, differences, tables, blocks }: Comparison): ViewPage {
  const body = [
    '<nav aria-label="Up"><a href="/">All runs</a> <a href="#reports">Both reports</a></nav>',
    '<main>',
    '<h1>Two runs</h1>',
    `<dl><dt>left</dt><dd>${titleOf(left)}</dd><dt>right</dt><dd>${titleOf(right)}</dd></dl>`,
    folding('What differs in the manifests', differenceTable(differences)),
    ...tables.map(({ name, merged }) => folding(`Table ${show(name)}`, mergedTable(name, merged))),
    '<h2 id="reports">Reports</h2>',
    blockChoice(blocks),
    '<div class="pair">',
    reportFrame('left', left),
    reportFrame('right', right),
    '</div>',
    '</main>',
  ];
  return { title: 'xpatch: two runs', body, script: COMPARE_SCRIPT };
}

const folding = (heading: string, body: string) =>
  `<details open><summary><h2>${heading}</h2></summary>\n${body}\n</details>`;

/** A choice of block that scrolls both reports. */
function blockChoice({ left, right }: Comparison['blocks']): string {
  const ids = [...new Set([...left, ...right])];
  if (ids.length === 0) return '';
  const options = ids.map((id) => {
    const side = !right.includes(id) ? ' (left only)' : !left.includes(id) ? ' (right only)' : '';
    return `<option value="${encodeURIComponent(id)}">${textHtml(id)}${side}</option>`;
  });
  // Not kept over a reload, which puts both reports back to their top.
  const select = `<select id="block" autocomplete="off"><option value="">the top</option>${options.join('')}</select>`;
  return `<p class="goto"><label for="block">Scroll both to</label> ${select}</p>`;
}

function reportFrame(side: 'left' | 'right', run: Run): string {
  const title = `${side} report: ${textHtml(run.title)}`;
  const frame = run.hasReport
    ? `<iframe src="${runUrl(run, 'report.html')}" title="${title}" allow="clipboard-write *"></iframe>`
    : '<p>No report.</p>';
  return `<section aria-label="${side}"><h3>${side}: ${titleOf(run)}</h3>${stateNote(run)}${frame}</section>`;
}

function differenceTable(differences: readonly Difference[]): string {
  if (differences.length === 0) return '<p>Nothing.</p>';
  const value = (text: string | undefined) => `<td class="value">${text === undefined ? MISSING : show(text)}</td>`;
  const rows = differences
    .slice(0, MOST_DIFFERENCES)
    .map(({ key, left, right }) => `<tr><th scope="row">${show(key)}</th>${value(left)}${value(right)}</tr>`);
  const rest = differences.length - rows.length;
  const table = scrolling('What differs in the manifests', 'differences', [
    '<thead><tr><th scope="col">key</th><th scope="col">left</th><th scope="col">right</th></tr></thead>',
    `<tbody>${rows.join('\n')}</tbody>`,
  ]);
  return rest > 0 ? `${table}\n<p class="quiet-text">And ${rest} more.</p>` : table;
}

const SUBHEADS = { same: ['both'], number: ['left', 'right', 'difference'], text: ['left', 'right'] } as const;

function mergedTable(name: string, merged: MergedTable | undefined): string {
  if (!merged) return '<p>Its rows or columns are not the same in both runs: see the reports.</p>';
  const { corner, columns, rows, unshared } = merged;
  const note = unshared.length > 0 ? `<p class="quiet-text">Only in one run: ${show(unshared.join(', '))}.</p>` : '';
  if (columns.every(({ kind }) => kind === 'same')) return `<p>The same in both runs.</p>${note}`;
  const groups = columns.map(
    (column) =>
      `<th scope="colgroup" class="group" colspan="${SUBHEADS[column.kind].length}">${show(column.name)}</th>`,
  );
  const heads = columns.flatMap(({ kind }) =>
    SUBHEADS[kind].map(
      (head, i) => `<th scope="col"${kind === 'number' ? classes('number', i) : classes('', i)}>${head}</th>`,
    ),
  );
  const body = rows.map(({ label, cells }) => {
    const values = cells.map(({ left, right, difference }, i) => {
      const kind = columns[i]?.kind ?? 'same';
      const rest = kind === 'same' ? '' : valueCell(right, 1);
      return valueCell(left, 0) + rest + (kind === 'number' ? differenceCell(difference) : '');
    });
    return `<tr><th scope="row">${show(label)}</th>${values.join('')}</tr>`;
  });
  const table = scrolling(`Table ${textHtml(name)}`, 'merged', [
    `<thead><tr><th scope="col" rowspan="2">${show(corner) || 'row'}</th>${groups.join('')}</tr>`,
    `<tr>${heads.join('')}</tr></thead>`,
    `<tbody>${body.join('\n')}</tbody>`,
  ]);
  return table + note;
}

/** The first column of a group has a line on its left. */
const classes = (name: string, i: number) => ` class="${name}${i === 0 ? ' group' : ''}"`;

const valueCell = (text: string, i: number) =>
  isNumber(text)
    ? `<td${classes('number', i)}>${shortNumber(Number(text))}</td>`
    : `<td${classes('value', i)}>${text === '' ? MISSING : show(text)}</td>`;

function differenceCell(value: number | undefined): string {
  if (value === undefined) return `<td>${MISSING}</td>`;
  const sign = value > 0 ? '+' : value < 0 ? '−' : '';
  return `<td class="number difference">${sign}${shortNumber(Math.abs(value))}</td>`;
}

/** Whole numbers as they are, others with three digits behind the point, or of themselves where those would be zeros. */
function shortNumber(value: number): string {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 0.001 ? value.toFixed(3) : String(Number(value.toPrecision(3)));
}
