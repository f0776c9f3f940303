import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { textHtml } from './page-text.js';
import { type Difference, isNumber, type MergedTable } from './view-compare.js';
import type { Run } from './view-runs.js';
import { COMPARE_SCRIPT, VIEW_STYLE } from './view-style.js';

/** A page with the Content-Security-Policy that it is served with. */
export interface ViewPage {
  readonly html: string;
  readonly policy: string;
}

const LONGEST = 300;
/** More would only be slow to read and to draw. */
const MOST_DIFFERENCES = 500;
const SORTS = ['title', 'experiment', 'model', 'status', 'started', 'size'] as const;

/** A string of a manifest, a file or a request, as HTML: cut, made visible, escaped, and kept from turning its line round. */
function show(text: string): string {
  const characters = [...text];
  const cut = characters.length > LONGEST ? `${characters.slice(0, LONGEST).join('')}…` : text;
  return cut === '' ? '' : `<bdi>${textHtml(cut)}</bdi>`;
}

const runUrl = ({ id }: Run, file = '') => `/runs/${id}/${file.split('/').map(encodeURIComponent).join('/')}`;
const titleOf = (run: Run) => `${show(run.title)} <small>${show(basename(run.path))}</small>`;
const hash = (text: string) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

function page(title: string, body: readonly string[], script = ''): ViewPage {
  const out = [
    '<!doctype html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width">',
    `<title>${textHtml(title)}</title>`,
    `<style>${VIEW_STYLE}</style>`,
    '</head>',
    '<body>',
    ...body,
    ...(script ? [`<script>${script}</script>`] : []),
    '</body>',
    '</html>',
  ];
  const sources = [`style-src ${hash(VIEW_STYLE)}`, ...(script ? [`script-src ${hash(script)}`] : [])].join('; ');
  const frames = "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'";
  return { html: `${out.join('\n')}\n`, policy: `default-src 'none'; ${sources}; ${frames}` };
}

const back = '<nav aria-label="Up"><a href="/">All runs</a></nav>';
/** A table may be wider than the screen: it scrolls by itself, with the keyboard too. */
const wide = (label: string, lines: readonly string[]) =>
  [`<div class="wide" role="region" aria-label="${label}" tabindex="0"><table>`, ...lines, '</table></div>'].join('\n');

/** The list of runs. `sort` is the name of a column, with a dash in front for the other direction. */
export function indexPage(runs: readonly Run[], sort = '-started'): ViewPage {
  const key = SORTS.find((name) => name === sort.replace(/^-/, '')) ?? 'started';
  const down = sort.startsWith('-') ? -1 : 1;
  const value = (run: Run) => (key === 'size' ? run.bytes : key === 'status' ? run.state : run[key]);
  const sorted = [...runs].sort((a, b) => (value(a) < value(b) ? -down : value(a) > value(b) ? down : 0));
  const choice = runs.length > 1;
  const heads = SORTS.map((name) => {
    const next = name === key && down === 1 ? `-${name}` : name;
    const order = name !== key ? '' : ` aria-sort="${down === 1 ? 'ascending' : 'descending'}"`;
    return `<th scope="col"${order}><a href="/?sort=${next}">${name}</a></th>`;
  });
  const chosen = sorted.filter((run) => run.hasReport);
  const radio = (side: 'left' | 'right', run: Run, checked: boolean) =>
    `<td class="choice"><input type="radio" name="${side}" value="${run.id}" required${checked ? ' checked' : ''} aria-label="${side}: ${textHtml(run.title)}"></td>`;
  const rows = sorted.map((run) => {
    const radios = choice
      ? [radio('left', run, run === chosen[0]), radio('right', run, run === (chosen[1] ?? sorted[1]))]
      : [];
    const title = show(run.title);
    return `<tr>${[
      ...radios,
      `<th scope="row">${run.hasReport ? `<a href="${runUrl(run, 'report.html')}">${title}</a>` : title}` +
        `<br><small>${show(basename(run.path))} · <a href="${runUrl(run)}">files<span class="hidden"> of ${title}</span></a></small>${stateNote(run)}</th>`,
      `<td>${show(run.experiment)}</td>`,
      `<td>${show(run.model)}</td>`,
      `<td><span class="state ${run.state}">${run.state}</span></td>`,
      `<td class="number">${timeOf(run)}</td>`,
      `<td class="number">${bytesOf(run.bytes)}</td>`,
    ].join('')}</tr>`;
  });
  const sides = choice ? ['<th scope="col">left</th><th scope="col">right</th>'] : [];
  const table = wide('Runs', [
    `<thead><tr>${[...sides, ...heads].join('')}</tr></thead>`,
    '<tbody>',
    ...rows,
    '</tbody>',
  ]);
  return page(`xpatch: ${runs.length} run${runs.length === 1 ? '' : 's'}`, [
    '<main>',
    '<h1>Runs</h1>',
    ...(choice
      ? [
          '<form action="/compare">',
          '<p>Open a run by its title, or choose two to see them side by side: <button>Compare left with right</button></p>',
          table,
          '</form>',
        ]
      : [table]),
    '</main>',
  ]);
}

function stateNote(run: Run): string {
  if (run.problem !== undefined) return `<p class="problem">${show(run.problem)}</p>`;
  if (run.state === 'complete') return '';
  return '<p class="note">Not finished: reload this page later. A run that was interrupted stays like this.</p>';
}

function timeOf({ started }: Run): string {
  const time = new Date(started);
  if (started === '' || Number.isNaN(time.getTime())) return show(started);
  const iso = time.toISOString();
  return `<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC</time>`;
}

function bytesOf(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 999_500 ? `${(bytes / 1e3).toPrecision(3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** One run: its state and its files. */
export function runPage(run: Run, files: readonly string[]): ViewPage {
  const links = files.map((name) => `<li><a href="${runUrl(run, name)}">${show(name)}</a></li>`);
  const facts = Object.entries({ folder: run.path, command: run.manifest.command, status: run.state });
  return page(`xpatch: ${run.title}`, [
    back,
    '<main>',
    `<h1>${show(run.title)}</h1>`,
    stateNote(run),
    '<dl>',
    ...facts.map(([name, value]) => `<dt>${name}</dt><dd>${typeof value === 'string' ? show(value) : '–'}</dd>`),
    '</dl>',
    '<h2>Files</h2>',
    links.length > 0 ? `<ul>${links.join('\n')}</ul>` : '<p>None yet.</p>',
    '</main>',
  ]);
}

/** What went wrong with a request. */
export function problemPage(code: string, message: string): ViewPage {
  return page('xpatch: not there', [
    back,
    '<main>',
    '<h1>Not there</h1>',
    `<p class="problem">${show(`${code}: ${message}`)}</p>`,
    '</main>',
  ]);
}

/** What the page of two runs shows above their reports. */
export interface Comparison {
  readonly left: Run;
  readonly right: Run;
  readonly differences: readonly Difference[];
  /** Tables of the same name; without `merged` where rows or columns differ. */
  readonly tables: readonly { readonly name: string; readonly merged?: MergedTable }[];
  /** Names of the blocks of each report. */
  readonly blocks: { readonly left: readonly string[]; readonly right: readonly string[] };
}

/** Two runs side by side. */
export function comparePage({ left, right, differences, tables, blocks }: Comparison): ViewPage {
  const names = [...new Set([...blocks.left, ...blocks.right])];
  const options = names.map((name) => {
    const side = !blocks.right.includes(name) ? ' (left only)' : !blocks.left.includes(name) ? ' (right only)' : '';
    return `<option value="${textHtml(encodeURIComponent(`block-${name}`))}">${textHtml(name)}${side}</option>`;
  });
  const frame = (side: 'left' | 'right', run: Run) =>
    run.hasReport
      ? `<iframe src="${runUrl(run, 'report.html')}" title="Report ${side}: ${textHtml(run.title)}" allow="clipboard-write *"></iframe>`
      : `<p class="note">No report.</p>`;
  const column = (side: 'left' | 'right', run: Run) =>
    `<section aria-label="${side}"><h3>${side}: ${titleOf(run)}</h3>${stateNote(run)}${frame(side, run)}</section>`;
  return page(
    'xpatch: two runs',
    [
      back,
      '<main>',
      '<h1>Two runs</h1>',
      `<p>left: ${titleOf(left)}<br>right: ${titleOf(right)}</p>`,
      '<details open><summary><h2>What differs in the manifests</h2></summary>',
      differenceTable(differences),
      '</details>',
      ...tables.map((table) => mergedSection(table)),
      '<h2 id="reports">Reports</h2>',
      ...(names.length > 0
        ? [
            '<p class="goto"><label for="block">Scroll both to</label>',
            `<select id="block" autocomplete="off"><option value="">the top</option>${options.join('')}</select></p>`,
          ]
        : []),
      '<div class="pair">',
      column('left', left),
      column('right', right),
      '</div>',
      '</main>',
    ],
    COMPARE_SCRIPT,
  );
}

function differenceTable(differences: readonly Difference[]): string {
  if (differences.length === 0) return '<p>Nothing.</p>';
  const value = (text: string | undefined) =>
    text === undefined
      ? '<td class="text">–<span class="hidden"> not there</span></td>'
      : `<td class="text">${show(text)}</td>`;
  const rows = differences
    .slice(0, MOST_DIFFERENCES)
    .map(({ key, left, right }) => `<tr><th scope="row">${show(key)}</th>${value(left)}${value(right)}</tr>`);
  const rest = differences.length - rows.length;
  return [
    wide('What differs in the manifests', [
      '<thead><tr><th scope="col">key</th><th scope="col">left</th><th scope="col">right</th></tr></thead>',
      `<tbody>${rows.join('\n')}</tbody>`,
    ]),
    ...(rest > 0 ? [`<p class="note">And ${rest} more.</p>`] : []),
  ].join('\n');
}

function mergedSection({ name, merged }: Comparison['tables'][number]): string {
  const heading = `Table ${show(name)}`;
  const body = !merged
    ? '<p class="note">Its rows or columns are not the same in both runs: see the reports.</p>'
    : merged.columns.every(({ kind }) => kind === 'same')
      ? '<p>The same in both runs.</p>'
      : mergedTable(name, merged);
  return `<details open><summary><h2>${heading}</h2></summary>\n${body}\n</details>`;
}

function mergedTable(name: string, { corner, columns, rows }: MergedTable): string {
  const subheads = { same: ['both'], number: ['left', 'right', 'difference'], text: ['left', 'right'] } as const;
  const groups = columns.map(
    (column) => `<th scope="colgroup" colspan="${subheads[column.kind].length}">${show(column.name)}</th>`,
  );
  const seconds = columns.flatMap(({ kind }) => subheads[kind].map((head) => `<th scope="col">${head}</th>`));
  const body = rows.map(({ label, cells }) => {
    const values = cells.flatMap(({ left, right, difference }, i) => {
      const kind = columns[i]?.kind ?? 'same';
      if (kind === 'same') return cell(left);
      if (kind === 'text') return cell(left) + cell(right);
      return cell(left) + cell(right) + (difference === undefined ? cell('') : differenceCell(difference));
    });
    return `<tr><th scope="row">${show(label)}</th>${values.join('')}</tr>`;
  });
  return wide(`Table ${textHtml(name)}`, [
    `<thead><tr><th scope="col" rowspan="2">${show(corner) || 'row'}</th>${groups.join('')}</tr>`,
    `<tr>${seconds.join('')}</tr></thead>`,
    `<tbody>${body.join('\n')}</tbody>`,
  ]);
}

const cell = (text: string) =>
  isNumber(text)
    ? `<td class="number">${shortNumber(Number(text))}</td>`
    : `<td class="text">${show(text) || '–'}</td>`;

function differenceCell(value: number): string {
  const sign = value > 0 ? '+' : value < 0 ? '−' : '';
  return `<td class="number difference">${sign}${shortNumber(Math.abs(value))}</td>`;
}

/** Four digits; whole numbers have all of theirs. */
const shortNumber = (value: number) => String(Number.isInteger(value) ? value : Number(value.toPrecision(4)));
