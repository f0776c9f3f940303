import type { Cell, Table } from '../evaluation/tables.js';

const MISSING = '–';

/**
 * A table for the terminal: aligned columns, intervals under their values, names of columns broken at hyphens. Control
 * characters in names and notes are dropped.
 */
export function tableToText(table: Table, options: { width?: number } = {}): string {
  const heads = table.columns.map((name) => plain(name).split(/(?<=-)/));
  const cells = table.rows.map((row) =>
    row.cells.map((cell) => (cell ? [number(cell.value), shortInterval(cell)] : [MISSING])),
  );
  const headHeight = Math.max(1, ...heads.map((lines) => lines.length));
  const widths = table.columns.map((_, column) =>
    Math.max(...[...(heads[column] ?? []), ...cells.flatMap((row) => row[column] ?? [])].map(length)),
  );
  const labels = [table.corner, ...table.rows.map((row) => row.label)].map(plain);
  const labelWidth = Math.max(...labels.map(length));
  const line = (label: string, texts: readonly string[]) =>
    [label.padEnd(labelWidth), ...texts.map((text, column) => text.padStart(widths[column] ?? 0))].join('  ').trimEnd();
  const rule = '─'.repeat(labelWidth + widths.reduce((sum, width) => sum + width + 2, 0));

  const out = [plain(table.title), rule];
  for (let i = 0; i < headHeight; i++) {
    const label = i === headHeight - 1 ? (labels[0] as string) : '';
    out.push(
      line(
        label,
        heads.map((lines) => lines[i - headHeight + lines.length] ?? ''),
      ),
    );
  }
  out.push(rule);
  cells.forEach((row, i) => {
    out.push(
      line(
        labels[i + 1] as string,
        row.map((texts) => texts[0] ?? ''),
      ),
    );
    if (row.some((texts) => texts.length > 1))
      out.push(
        line(
          '',
          row.map((texts) => texts[1] ?? ''),
        ),
      );
  });
  out.push(rule, ...table.notes.flatMap((note) => wrap(plain(note), options.width ?? length(rule))));
  return `${out.join('\n')}\n`;
}

/** A GitHub table with the title above and the notes below. */
export function tableToMarkdown(table: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const out = [
    `**${markdown(table.title)}**`,
    '',
    line([table.corner, ...table.columns].map(markdown)),
    line(['---', ...table.columns.map(() => '---:')]),
    ...table.rows.map((row) => line([markdown(row.label), ...row.cells.map(formatCell)])),
    '',
    ...table.notes.map((note) => `- ${markdown(note)}`),
  ];
  return `${out.join('\n')}\n`;
}

/** One line a cell (row, column, value, low, high, n, items) after RFC 4180, for programs; full precision, no notes. */
export function tableToCsv(table: Table): string {
  const out = [['row', 'column', 'value', 'low', 'high', 'n', 'items']];
  for (const row of table.rows) {
    row.cells.forEach((cell, column) => {
      const name = table.columns[column] ?? '';
      const numbers = cell ? [cell.value, cell.low, cell.high, cell.n, cell.items].map(String) : ['', '', '', '0', '0'];
      out.push([row.label, name, ...numbers]);
    });
  }
  return out.map((fields) => `${fields.map(csv).join(',')}\r\n`).join('');
}

/** `0.62 [0.55, 0.69]`, or a dash where nothing was measured. */
export function formatCell(cell: Cell | undefined): string {
  return cell ? `${number(cell.value)} ${interval(cell)}` : MISSING;
}

// A difference that rounds to zero must not read -0.00.
const number = (value: number): string => value.toFixed(2).replace(/^-(0\.00)$/, '$1');
// Seven columns shall fit into 100 characters: .55–.69
const shortInterval = ({ low, high }: Cell): string =>
  [low, high].map((value) => number(value).replace(/^(-?)0\./, '$1.')).join('–');
const interval = ({ low, high }: Cell): string => `[${number(low)}, ${number(high)}]`;

/** Without control characters, which could move the cursor of a terminal or break a line. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is removed here
const plain = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
const length = (text: string): number => [...text].length;
const markdown = (text: string): string =>
  plain(text)
    .replace(/[\\`*_[\]|]/g, '\\$&')
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;');
const csv = (field: string): string => (/[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field);

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && length(last) + 1 + length(word) <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
