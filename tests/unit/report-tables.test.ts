import { describe, expect, test } from '@jest/globals';
import type { TextTable } from '../../src/report/report.js';
import {
  csvLine,
  displayWidth,
  tableToCsv,
  tableToLatex,
  tableToMarkdown,
  tableToText,
} from '../../src/report/tables.js';
import type { Cell, Table } from '../../src/stats/tables.js';
import { expectError } from './helpers.js';

const cell = (value: number, low: number, high: number): Cell => ({ value, low, high, n: 300, items: 151 });
const table: Table = {
  title: 'Accuracy',
  corner: 'Condition',
  columns: ['country-capital', 'mean'],
  rows: [
    { label: 'Image Prompt', cells: [undefined, undefined] },
    { label: 'Text Patch', cells: [cell(0.625, 0.5678, 1), cell(-0.001, -0.25, 0.3)] },
  ],
  notes: ['n: 300 a cell.'],
};
const hostile: Table = {
  title: 'a\u001b[31mb<script>',
  corner: '|',
  columns: ['x"y,z', '<b>&'],
  rows: [{ label: '=1|2\n`c`', cells: [cell(1, 1, 1), undefined] }],
  notes: ['<img src=x onerror=alert(1)>'],
};

/** The fields of one line of CSV, after RFC 4180. */
const fieldsOf = (line: string) =>
  [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,\r\n]*))/g)].map(
    ([, quoted, plain = '']) => quoted?.replaceAll('""', '"') ?? plain,
  );

describe('tables', () => {
  test('a table wider than the terminal goes on below, with the names of its rows', () => {
    const columns = [{ name: 'task' }, { name: 'kind' }, ...'abcdef'.split('').map((name) => ({ name, digits: 2 }))];
    const row = (task: string) => [task, 'text', 1, 22, 333, 4444, 55555, 666666];
    const wide = { title: 'A title', columns, rows: [row('capital'), row('color')], notes: ['A note.'] };
    const whole = tableToText(wide);
    expect(tableToText(wide, { width: 100 })).toBe(whole);
    const parts = tableToText(wide, { width: 44 });
    expect(parts.split('\n').every((line) => line.length <= 44)).toBe(true);
    expect(parts.match(/^task +kind/gm)).toHaveLength(2);
    expect(parts.match(/^color +text/gm)).toHaveLength(2);
    for (const name of ['1.00', '22.00', '333.00', '4444.00', '55555.00', '666666.00']) {
      expect(parts.split(name)).toHaveLength(3); // once in each row
    }
    // Names that take more than half of the width are said once, the first of them always.
    expect(tableToText(wide, { width: 20 }).match(/^capital/gm)?.length).toBeGreaterThan(3);
    expect(tableToText(wide, { width: 20 }).match(/text/g)).toHaveLength(2);
    expect(tableToText(wide, { width: 1 })).toMatch(/666666\.00/);
  });

  test('as text are aligned and break long names', () => {
    expect(tableToText(table)).toBe(
      [
        'Accuracy',
        '────────────────────────────────',
        '              country-',
        'Condition      capital      mean',
        '────────────────────────────────',
        'Image Prompt         –         –',
        'Text Patch        0.63      0.00',
        '              .57–1.00  -.25–.30',
        '────────────────────────────────',
        'n: 300 a cell.',
        '',
      ].join('\n'),
    );
  });

  test('as text wrap their notes and let no control character through', () => {
    const long = tableToText({ ...table, notes: ['word '.repeat(30).trim()] });
    for (const line of long.split('\n')) expect([...line].length).toBeLessThanOrEqual(60);
    expect(tableToText({ ...table, notes: ['aa bb cc'] }, { width: 5 })).toMatch(/\naa bb\ncc\n$/);
    const narrow = { title: 'T', columns: [{ name: 'a' }], rows: [['x']], notes: ['a note of more than one word'] };
    expect(tableToText(narrow)).toMatch(/\na note of more than one word\n$/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not appear
    expect(tableToText(hostile)).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
    expect(tableToText(hostile)).toMatch(/^=1\|2 `c` /m);
  });

  test('as Markdown', () => {
    expect(tableToMarkdown(table)).toBe(
      [
        '**Accuracy**',
        '',
        '| Condition | country-capital | mean |',
        '| --- | ---: | ---: |',
        '| Image Prompt | – | – |',
        '| Text Patch | 0.63 [0.57, 1.00] | 0.00 [-0.25, 0.30] |',
        '',
        '- n: 300 a cell.',
        '',
      ].join('\n'),
    );
    const escaped = tableToMarkdown(hostile);
    expect(escaped).toContain('| =1\\|2 \\`c\\` | 1.00 [1.00, 1.00] | – |');
    expect(escaped).not.toMatch(/<(script|img|b)/);
  });

  test('as CSV keep full precision and quote by RFC 4180', () => {
    expect(tableToCsv(table)).toBe(
      [
        'row,column,value,low,high,n,items',
        'Image Prompt,country-capital,,,,0,0',
        'Image Prompt,mean,,,,0,0',
        'Text Patch,country-capital,0.625,0.5678,1,300,151',
        'Text Patch,mean,-0.001,-0.25,0.3,300,151',
        '',
      ].join('\r\n'),
    );
    expect(tableToCsv(hostile)).toContain('"\'=1|2\n`c`","x""y,z",1,1,1,300,151\r\n');
  });
});

const texts: TextTable = {
  title: 'Decodings',
  columns: [{ name: 'task' }, { name: 'KL to the highest layer, nats', digits: 2 }, { name: 'n' }],
  rows: [
    ['capital', 0.125, 30],
    ['東京', -0.001, undefined],
  ],
  notes: ['Of 30.'],
};
const evil = '</td><script>$x_1$ & 100% #{}~^\\|"\u202e\u0007\ud800`';

describe('tables of texts', () => {
  test('set numbers to the right, break long names at blanks, and count columns as a terminal does', () => {
    expect(tableToText(texts)).toBe(
      [
        'Decodings',
        '────────────────────────',
        '           KL to the',
        '             highest',
        'task     layer, nats   n',
        '────────────────────────',
        'capital         0.13  30',
        '東京            0.00   –',
        '────────────────────────',
        'Of 30.',
        '',
      ].join('\n'),
    );
    expect(displayWidth('東京')).toBe(4);
    expect(displayWidth('e\u0301🍎')).toBe(3);
  });

  test('as Markdown, CSV and LaTeX', () => {
    expect(tableToMarkdown(texts)).toContain('| --- | ---: | ---: |\n| capital | 0.13 | 30 |\n| 東京 | 0.00 | – |\n');
    expect(tableToCsv(texts)).toBe('task,"KL to the highest layer, nats",n\r\ncapital,0.125,30\r\n東京,-0.001,\r\n');
    expect(tableToLatex(texts)).toContain(
      [
        '  \\caption{Decodings. Of 30.}',
        '  \\begin{tabular}{lrr}',
        '    \\toprule',
        '    task & KL to the highest layer, nats & n \\\\',
        '    \\midrule',
        '    capital & 0.13 & 30 \\\\',
        '    東京 & 0.00 & -- \\\\',
        '    \\bottomrule',
      ].join('\n'),
    );
    expect(tableToLatex(table)).toContain(
      '    Text Patch & 0.63 {\\scriptsize [0.57, 1.00]} & 0.00 {\\scriptsize [-0.25, 0.30]} \\\\',
    );
    expect(tableToLatex(table)).toContain('    Image Prompt & -- & -- \\\\');
  });

  test('with hostile text stay tables', () => {
    const hostile: TextTable = {
      title: evil,
      columns: [{ name: evil }],
      rows: [[evil], ['[a]'], ['a\nb'], [' *c'], ["''--,,d"]],
      notes: [evil],
    };
    for (const format of [tableToText, tableToMarkdown, tableToLatex]) {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not appear
      expect(format(hostile)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]|\p{Cs}/u);
    }
    expect(tableToText(hostile)).toContain('\na b\n');
    expect(tableToMarkdown(hostile)).toContain('&lt;/td>&lt;script>\\$x\\_1\\$ &amp; 100% #{}\\~^\\\\\\|" \\`');
    const latex = tableToLatex(hostile);
    expect(latex).toContain(
      '    \\textless{}/td\\textgreater{}\\textless{}script\\textgreater{}\\$x\\_1\\$ \\& 100\\% \\#\\{\\}' +
        '\\textasciitilde{}\\textasciicircum{}\\textbackslash{}\\textbar{}\\symbol{34} \\textasciigrave{} \\\\\n',
    );
    // After a line break LaTeX would take a bracket for its option.
    expect(latex).toContain('    {[}a] \\\\\n');
    expect(latex).toContain('    { *}c \\\\\n');
    // Nor may two characters become one.
    expect(latex).toContain("    '{}'-{}-,{},d \\\\\n");
    expect(tableToLatex({ ...hostile, columns: [{ name: '[a]' }] })).toContain('    {[}a] \\\\\n    \\midrule');
    expect(tableToCsv({ ...hostile, rows: [['a"b'], ['c\r\nd'], ['e,f']] })).toMatch(
      /\r\n"a""b"\r\n"c\\u\{d\}\nd"\r\n"e,f"\r\n$/,
    );
  });

  test('as CSV are texts in a spreadsheet and on a terminal, and numbers stay numbers', () => {
    const formulas = [
      '=1+1',
      '+1-1',
      '-x',
      '@SUM(A1)',
      ' =1',
      '\t=1',
      '\r=1',
      '\uff1d1',
      '-1,5',
      '+',
      '-',
      '--1',
      '-1.5.2',
    ];
    const numbers = ['-1.5', '+2', '1e-7', '-3E+10', '-Infinity', '0', ''];
    const lines = csvLine([...formulas, ...numbers, -0.25, 'a\tb\x1b[2J\u202e', 'x=1', "it's"]);
    expect(fieldsOf(lines)).toEqual([
      ..."'=1+1 '+1-1 '-x '@SUM(A1)".split(' '),
      "' =1",
      '\\u{9}=1',
      '\\u{d}=1',
      "'\uff1d1",
      ..."'-1,5 '+ '- '--1 '-1.5.2".split(' '),
      ...numbers,
      '-0.25',
      'a\\u{9}b\\u{1b}[2J\\u{202e}',
      'x=1',
      "it's",
    ]);
  });

  test('keep the room between words', () => {
    const spaced = { ...texts, rows: [['a  b', 1, 2]] };
    expect(tableToText(spaced)).toContain('\na  b ');
    expect(tableToMarkdown(spaced)).toContain('| a&nbsp; b |');
    expect(tableToLatex(spaced)).toContain(' a~ b &');
  });

  test('refuse rows that do not fit and numbers that are none', async () => {
    for (const format of [tableToText, tableToMarkdown, tableToCsv, tableToLatex]) {
      const refused = (some: TextTable | Table, why: RegExp) =>
        expectError(() => format(some), 'INVALID_ARGUMENT', why);
      await refused({ ...texts, rows: [['capital', 1]] }, /row of 2 cells for 3 columns/);
      await refused({ ...texts, rows: [['capital', Number.NaN, 1]] }, /not finite/);
      await refused({ ...texts, columns: [], rows: [] }, /no columns/);
      await refused(
        { ...table, rows: [{ label: 'x', cells: [cell(1, 0, Number.POSITIVE_INFINITY), undefined] }] },
        /not finite/,
      );
    }
  });
});
