import type { Cell, Table } from '../stats/tables.js';
import { XpatchError } from '../util/errors.js';
import { largest } from '../util/extremes.js';
import { printable } from '../util/printable.js';
import type { TextTable } from './report.js';
import { REORDERING } from './visible.js';

const MISSING = '–';

/** Notes are as wide as their table, but no narrower than this. */
const NOTES_WIDTH = 60;

/**
 * A table for the terminal: aligned columns, intervals under their values, names of columns broken at hyphens (at spaces in a
 * `TextTable`). Control characters and those that reorder text are dropped.
 *
 * @param options.width of the terminal, in columns: a wider table is divided into parts, each with the columns that name its rows. Defaults
 *   to no limit.
 * @throws {XpatchError} INVALID_ARGUMENT for a row of another length than the columns, or a number that is not finite
 */
export function tableToText(table: Table | TextTable, options: { width?: number | undefined } = {}): string {
  const { width: limit = Number.POSITIVE_INFINITY } = options;
  const { heads, right, rows } = gridOf(table);
  const widths = heads.map((lines, column) =>
    largest([0, ...[...lines, ...rows.flatMap((row) => row[column] ?? [])].map(displayWidth)]),
  );
  const parts = partsOf(widths, right, limit).map((columns) => {
    const line = (texts: readonly string[]) =>
      texts
        .map((text, i) => {
          const spaces = ' '.repeat((widths[columns[i] as number] as number) - displayWidth(text));
          return right[columns[i] as number] ? spaces + text : text + spaces;
        })
        .join('  ')
        .trimEnd();
    const lines = (row: readonly (readonly string[])[], side: 'top' | 'bottom') => {
      const cells = columns.map((column) => row[column] as readonly string[]);
      const height = Math.max(1, ...cells.map((cell) => cell.length));
      return Array.from({ length: height }, (_, i) =>
        line(cells.map((cell) => cell[side === 'top' ? i : i - height + cell.length] ?? '')),
      );
    };
    const rule = '─'.repeat(sumOf(widths, columns));
    return { rule, lines: [rule, ...lines(heads, 'bottom'), rule, ...rows.flatMap((row) => lines(row, 'top'))] };
  });
  const widest = Math.max(NOTES_WIDTH, ...parts.map(({ rule }) => rule.length));
  const out = [
    ...wrap(plain(table.title), limit),
    ...parts.flatMap(({ lines }) => lines),
    parts.at(-1)?.rule ?? '',
    ...table.notes.flatMap((note) => wrap(plain(note), Math.min(widest, limit))),
  ];
  return `${out.join('\n')}\n`;
}

const sumOf = (widths: readonly number[], columns: readonly number[]): number =>
  columns.reduce((sum, column) => sum + (widths[column] as number) + 2, -2);

/** Which columns stand side by side. The first ones, as far as they are texts and leave half of the width, begin every part. */
function partsOf(widths: readonly number[], right: readonly boolean[], limit: number): number[][] {
  const all = [...widths.keys()];
  if (sumOf(widths, all) <= limit) return [all];
  const texts = all.slice(0, Math.max(1, right.indexOf(true)));
  while (texts.length > 1 && sumOf(widths, texts) > limit / 2) texts.pop();
  const parts = [[...texts]];
  for (const column of all.slice(texts.length)) {
    const last = parts.at(-1) as number[];
    if (last.length === texts.length || sumOf(widths, [...last, column]) <= limit) last.push(column);
    else parts.push([...texts, column]);
  }
  return parts;
}

/** Heads and cells as lines of text, and which columns are set to the right. */
function gridOf(table: Table | TextTable): { heads: string[][]; right: boolean[]; rows: string[][][] } {
  requireWhole(table);
  if ('corner' in table) {
    return {
      heads: [[plain(table.corner)], ...table.columns.map((name) => plain(name).split(/(?<=-)/))],
      right: [false, ...table.columns.map(() => true)],
      rows: table.rows.map(({ label, cells }) => [
        [plain(label)],
        ...cells.map((cell) => (cell ? [number(cell.value), shortInterval(cell)] : [MISSING])),
      ]),
    };
  }
  const rows = textRows(table).map((row) => row.map((text) => [plain(text)]));
  const right = numeric(table);
  const heads = table.columns.map(({ name }, column) => {
    // A long name must not make a column of short numbers wide.
    const body = largest([12, ...rows.map((row) => displayWidth(row[column]?.[0] ?? ''))]);
    return wrap(plain(name), body);
  });
  return { heads, right, rows };
}

/** A GitHub table with the title above and the notes below. @throws {XpatchError} as `tableToText` */
export function tableToMarkdown(table: Table | TextTable): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const { heads, right, rows } = flatOf(table, formatCell);
  const out = [
    `**${markdown(table.title)}**`,
    '',
    line(heads.map(markdown)),
    line(right.map((numbers) => (numbers ? '---:' : '---'))),
    ...rows.map((row) => line(row.map(({ text, raw }) => (raw ? text : markdown(text))))),
    '',
    ...table.notes.map((note) => `- ${markdown(note)}`),
  ];
  return `${out.join('\n')}\n`;
}

/**
 * After RFC 4180, for programs; full precision, no notes. A `Table` has one line a cell (row, column, value, low, high, n,
 * items), a `TextTable` its own columns. @throws {XpatchError} as `tableToText`
 */
export function tableToCsv(table: Table | TextTable): string {
  requireWhole(table);
  if (!('corner' in table)) {
    const rows = table.rows.map((row) => row.map((value) => String(value ?? '')));
    return [table.columns.map(({ name, csv = name }) => csv), ...rows].map(csvLine).join('');
  }
  const out = [['row', 'column', 'value', 'low', 'high', 'n', 'items']];
  for (const row of table.rows) {
    row.cells.forEach((cell, column) => {
      const name = table.columns[column] ?? '';
      const numbers = cell ? [cell.value, cell.low, cell.high, cell.n, cell.items].map(String) : ['', '', '', '0', '0'];
      out.push([row.label, name, ...numbers]);
    });
  }
  return out.map(csvLine).join('');
}

/**
 * One record after RFC 4180, with its line end. Texts may be anybody's: one that a spreadsheet would compute gets an apostrophe in
 * front, and what steers a terminal is written out. Numbers stay numbers.
 */
export const csvLine = (fields: readonly (string | number)[]): string =>
  `${fields.map((field) => csv(String(field))).join(',')}\r\n`;

/**
 * A floating table in LaTeX, to be used with the package booktabs; intervals are set smaller. Letters beyond Latin, Greek and
 * Cyrillic ones need XeLaTeX or LuaLaTeX. @throws {XpatchError} as `tableToText`
 */
export function tableToLatex(table: Table | TextTable): string {
  const { heads, right, rows } = flatOf(table, (cell) =>
    cell ? `${latex(number(cell.value))} {\\scriptsize ${latex(interval(cell))}}` : '--',
  );
  // A bracket or an asterisk at the start of a line would be read as an option of the rule or line break before it.
  const line = (cells: readonly string[]) => `    ${cells.join(' & ').replace(/^ ?[[*]/, '{$&}')} \\\\`;
  const out = [
    '% \\usepackage{booktabs}; letters beyond Latin, Greek and Cyrillic ones need XeLaTeX or LuaLaTeX',
    '\\begin{table}',
    '  \\centering',
    `  \\caption{${[table.title, ...table.notes].map((text) => sentence(latex(text))).join(' ')}}`,
    `  \\begin{tabular}{${right.map((numbers) => (numbers ? 'r' : 'l')).join('')}}`,
    '    \\toprule',
    line(heads.map(latex)),
    '    \\midrule',
    ...rows.map((row) => line(row.map(({ text, raw }) => (raw ? text : latex(text))))),
    '    \\bottomrule',
    '  \\end{tabular}',
    '\\end{table}',
  ];
  return `${out.join('\n')}\n`;
}

/** One string a head and cell; `raw` ones are finished. */
function flatOf(table: Table | TextTable, format: (cell: Cell | undefined) => string) {
  requireWhole(table);
  if ('corner' in table) {
    return {
      heads: [table.corner, ...table.columns],
      right: [false, ...table.columns.map(() => true)],
      rows: table.rows.map(({ label, cells }) => [
        { text: label, raw: false },
        ...cells.map((cell) => ({ text: format(cell), raw: true })),
      ]),
    };
  }
  return {
    heads: table.columns.map(({ name }) => name),
    right: numeric(table),
    rows: textRows(table).map((row) => row.map((text) => ({ text, raw: false }))),
  };
}

function requireWhole(table: Table | TextTable): void {
  const refuse = (problem: string): never => {
    throw new XpatchError('INVALID_ARGUMENT', `The table "${table.title}" ${problem}.`);
  };
  if (table.columns.length === 0) refuse('has no columns');
  for (const row of table.rows) {
    const cells = 'cells' in row ? row.cells : row;
    if (cells.length !== table.columns.length) {
      refuse(`has a row of ${cells.length} cells for ${table.columns.length} columns`);
    }
    const numbers = cells.flatMap((cell) =>
      typeof cell === 'object' ? [cell.value, cell.low, cell.high] : (cell ?? []),
    );
    if (numbers.some((value) => typeof value === 'number' && !Number.isFinite(value))) {
      refuse('has a number that is not finite; leave out what was not measured');
    }
  }
}

/** Columns of numbers alone (gaps aside) are set to the right. */
const numeric = ({ columns, rows }: TextTable): boolean[] =>
  columns.map((_, column) => {
    const values = rows.map((row) => row[column]).filter((value) => value !== undefined);
    return values.length > 0 && values.every((value) => typeof value === 'number');
  });

function textRows({ columns, rows }: TextTable): string[][] {
  return rows.map((row) => row.map((value, column) => formatValue(value, columns[column]?.digits)));
}

/** A value of a `TextTable` as it is shown: a number with its digits, a dash for a gap. */
export function formatValue(value: string | number | undefined, digits: number | undefined): string {
  if (value === undefined) return MISSING;
  if (typeof value === 'string' || digits === undefined) return String(value);
  return unsignedZero(value.toFixed(digits));
}

/** `0.62 [0.55, 0.69]`, or a dash where nothing was measured. */
export function formatCell(cell: Cell | undefined): string {
  return cell ? `${number(cell.value)} ${interval(cell)}` : MISSING;
}

// A difference that rounds to zero must not read -0.00.
const unsignedZero = (text: string): string => text.replace(/^-(0(?:\.0*)?)$/, '$1');
const number = (value: number): string => unsignedZero(value.toFixed(2));
// Seven columns shall fit into 100 characters: .55–.69
const shortInterval = ({ low, high }: Cell): string =>
  [low, high].map((value) => number(value).replace(/^(-?)0\./, '$1.')).join('–');
const interval = ({ low, high }: Cell): string => `[${number(low)}, ${number(high)}]`;

/** Without control characters, which could move the cursor of a terminal or break a line, and without bidirectional overrides. */
const plain = (text: string): string =>
  text
    .replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ')
    .replace(/\p{Cs}/gu, '')
    .replace(REORDERING, '');

const WIDE =
  /[\p{Script=Han}\p{Script=Hangul}\p{Script=Hiragana}\p{Script=Katakana}\p{Emoji_Presentation}\u3000-\u303e\uff01-\uff60\uffe0-\uffe6]/u;

/** Columns that a terminal gives a text: two for East Asian letters and emoji, none for marks that combine. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) {
    if (/[\p{Mn}\p{Me}\p{Cf}]/u.test(character)) continue;
    width += WIDE.test(character) ? 2 : 1;
  }
  return width;
}

const markdown = (text: string): string =>
  plain(text)
    .replace(/[\\`*_[\]|~$]/g, '\\$&')
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/ (?= )/g, '&nbsp;');
const NUMBER = /^[+-]?(\d+\.?\d*(e[+-]?\d+)?|Infinity)$/i;
/** Also after spaces, and as wide letters of East Asian fonts. */
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]/;

function csv(field: string): string {
  if (NUMBER.test(field)) return field;
  const text = field.replace(/[^\n]+/g, printable);
  const guarded = FORMULA.test(text) ? `'${text}` : text;
  return /[",\n]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
}

const LATEX: Record<string, string> = {
  '\\': '\\textbackslash{}',
  '^': '\\textasciicircum{}',
  '~': '\\textasciitilde{}',
  '<': '\\textless{}',
  '>': '\\textgreater{}',
  '|': '\\textbar{}',
  '"': '\\symbol{34}',
  '␣': '\\textvisiblespace{}',
  '⏎': '$\\hookleftarrow$',
  '−': '$-$',
  '–': '--',
  '…': '\\ldots{}',
  '×': '$\\times$',
  '≤': '$\\leq$',
  '≥': '$\\geq$',
  '→': '$\\rightarrow$',
  '∅': '$\\emptyset$',
  // Twice in a row these are one other character, as `` and ?` are.
  '`': '\\textasciigrave{}',
  "'": "'{}",
  '-': '-{}',
  ',': ',{}',
};
const latex = (text: string): string =>
  plain(text)
    .replace(/[&%$#_{}]|[\\^~<>|"␣⏎−–…×≤≥→∅`]|([',-])(?=\1)/g, (character) => LATEX[character] ?? `\\${character}`)
    .replace(/ (?= )/g, '~');
const sentence = (text: string): string => (/[.!?:]$/.test(text) ? text : `${text}.`);

/** Breaks at spaces into lines of at most `width` columns; a longer word keeps a line of its own. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && displayWidth(last) + 1 + displayWidth(word) <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else lines.push(word);
  }
  return lines;
}
