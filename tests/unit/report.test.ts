import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import type { Cell, Table } from '../../src/evaluation/tables.js';
import { type Figure, figureToSvg } from '../../src/report/figure.js';
import { type Report, reportToHtml } from '../../src/report/html.js';
import { figureToPng } from '../../src/report/png.js';
import { escapeXml, textWidth, wrapText } from '../../src/report/svg.js';
import { tableToCsv, tableToMarkdown, tableToText } from '../../src/report/tables.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
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

describe('tables', () => {
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
    for (const line of long.split('\n')) expect([...line].length).toBeLessThanOrEqual(32);
    expect(tableToText({ ...table, notes: ['aa bb cc'] }, { width: 5 })).toMatch(/\naa bb\ncc\n$/);
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
    expect(tableToCsv(hostile)).toContain('"=1|2\n`c`","x""y,z",1,1,1,300,151\r\n');
  });
});

const figure: Figure = {
  title: 'Validation accuracy by layer',
  xLabel: 'layer',
  yLabel: 'accuracy',
  panels: ['one', 'two', 'three', 'four'].map((title, p) => ({
    title,
    series: ['Text Patch', 'Image Patch'].map((label, s) => ({
      label,
      points: [0, 1, 2, 3].map((x) => ({ x, y: (x + p + s) / 10, low: (x + p) / 12, high: (x + p + s) / 8 })),
    })),
    baselines: [{ label: 'Text Prompt', y: 0.05 }],
    verticals: [{ label: 'chosen layer', x: 2 }],
  })),
  notes: ['Bands: 95 %.'],
};
const count = (text: string, part: string | RegExp) => text.split(part).length - 1;

describe('figures', () => {
  test('have titles, axes, one legend, curves, bands, dotted baselines and the chosen layer', () => {
    const svg = figureToSvg(figure);
    for (const text of ['Validation accuracy by layer', 'layer', 'accuracy', 'one', 'four', 'Bands: 95 %.']) {
      expect(svg).toContain(`>${text}</text>`);
    }
    expect(count(svg, '>Text Patch</text>')).toBe(1);
    expect(count(svg, 'fill-opacity="0.15"')).toBe(8);
    expect(count(svg, '<circle')).toBe(4 * 4 + 1);
    expect(count(svg, 'stroke-dasharray="1 4"')).toBe(4 + 1);
    expect(svg).toContain('font-family="sans-serif"');
  });

  test('put numbers where they belong', () => {
    const line: Figure = {
      ...figure,
      panels: [
        {
          title: '',
          series: [
            {
              label: 's',
              points: [
                { x: 4, y: 1 },
                { x: 0, y: 0 },
                { x: 2, y: 7 },
              ],
            },
          ],
        },
      ],
    };
    // 560 x 300 pixels with 12 on both sides; the value past the range is drawn at its end, points in order of x.
    expect(figureToSvg(line)).toContain('d="M12 300L280 0L548 0"');
    const single = { ...figure, panels: [{ title: '', series: [{ label: 's', points: [{ x: 3, y: 0.5 }] }] }] };
    expect(figureToSvg(single)).toContain('cx="12" cy="150"');
  });

  test('tick whole layers only, at round numbers', () => {
    const layers = (n: number): Figure => ({
      ...figure,
      panels: [{ title: '', series: [{ label: 's', points: Array.from({ length: n }, (_, x) => ({ x, y: 0.5 })) }] }],
    });
    const ticks = (n: number) =>
      [...figureToSvg(layers(n)).matchAll(/text-anchor="middle">(\d+(?:\.\d+)?)<\/text>/g)].map((match) => match[1]);
    expect(ticks(4)).toEqual(['0', '1', '2', '3']);
    expect(ticks(8)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
    expect(ticks(33)).toEqual(['0', '5', '10', '15', '20', '25', '30']);
  });

  test('escape hostile text', () => {
    const evil = '</text><script>alert("1")</script>\u0000&';
    const svg = figureToSvg({
      ...figure,
      title: evil,
      xLabel: evil,
      notes: [evil],
      panels: [{ title: evil, series: [{ label: evil, points: [{ x: 0, y: 0 }] }] }],
    });
    expect(svg).not.toContain('<script');
    expect(svg).not.toContain('\u0000');
    expect(svg).toContain('&lt;/text&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;');
  });

  test('refuse to draw nothing or numbers that are none', async () => {
    await expectError(() => figureToSvg({ ...figure, panels: [] }), 'INVALID_ARGUMENT', /has no points/);
    const nan = { ...figure, panels: [{ title: '', series: [{ label: 's', points: [{ x: 0, y: Number.NaN }] }] }] };
    await expectError(() => figureToSvg(nan), 'INVALID_ARGUMENT', /not finite/);
    await expectError(() => figureToSvg({ ...figure, yRange: [1, 1] }), 'INVALID_ARGUMENT', /empty range/);
  });

  test('as PNG show their letters without any font', async () => {
    expect(figureToSvg(figure, 'outlines')).not.toContain('<text');
    const png = await figureToPng(figure);
    const { width, height } = await sharp(png).metadata();
    const size = /width="(\d+)" height="(\d+)"/.exec(figureToSvg(figure));
    expect([width, height]).toEqual([2 * Number(size?.[1]), 2 * Number(size?.[2])]);
    // The strip of the title: black on white, neither empty nor filled.
    const strip = { left: 32, top: 32, width: 400, height: 36 };
    const { data, info } = await sharp(png)
      .extract(strip)
      .removeAlpha()
      .greyscale()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const dark = data.filter((value) => value < 128).length / (info.width * info.height);
    expect(dark).toBeGreaterThan(0.05);
    expect(dark).toBeLessThan(0.5);
  });

  test('measure and wrap text by the widths of the outlines', () => {
    // DejaVu Sans: M is 863, i is 278 thousandths of an em wide; an unknown character takes the box, 945.
    expect(textWidth('Mi', 10)).toBeCloseTo(11.41, 6);
    expect(textWidth('漢', 1000)).toBe(945);
    expect(wrapText('iii iii iii', 10, 25)).toEqual(['iii iii', 'iii']);
    expect(wrapText('MMMMMMMM ii', 10, 20)).toEqual(['MMMMMMMM', 'ii']);
  });
});

describe('escaping', () => {
  test('covers markup, quotes, forbidden characters and lone surrogates, and keeps the rest', () => {
    expect(escapeXml(`<a b="c" d='e'>&amp;`)).toBe('&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;');
    expect(escapeXml('a\u0000\u001b\ufffe\ud800b\n\tc')).toBe('ab\n\tc');
    expect(escapeXml('é漢🍎')).toBe('é漢🍎');
  });
});

describe('HTML report', () => {
  const evil = '"><script>alert(1)</script>';
  const report = (picture?: string): Report => ({
    title: evil,
    introduction: [evil],
    tables: [table, hostile],
    figures: [{ svg: figureToSvg(figure), caption: evil }],
    examples: [
      {
        task: evil,
        query: evil,
        expected: evil,
        answers: [
          { condition: evil, answer: evil, correct: true },
          { condition: 'No Context', answer: '', correct: false },
        ],
        ...(picture === undefined ? {} : { picture }),
      },
    ],
    provenance: { [evil]: evil, seed: 1 },
  });

  test('holds everything itself, with nothing hostile alive', async () => {
    const path = join(folder, 'red.png');
    await sharp({ create: { width: 400, height: 200, channels: 3, background: 'red' } })
      .png()
      .toFile(path);
    const html = await reportToHtml(report(path));
    expect(html).not.toMatch(/<script|<img src=x|https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
    expect(html).not.toMatch(/ (src|href)="(?!data:image\/png;base64,)/);
    expect(count(html, '&lt;script&gt;alert(1)')).toBeGreaterThanOrEqual(9);
    expect(html).toContain('<td>0.63<br><small>[0.57, 1.00]</small></td>');
    expect(html).toContain('No Context (wrong)</dt><dd>(nothing)</dd>');
    expect(html).toContain("default-src 'none'");
    const encoded = /src="data:image\/png;base64,([^"]+)"/.exec(html)?.[1] ?? '';
    expect(await sharp(Buffer.from(encoded, 'base64')).metadata()).toMatchObject({ width: 192, height: 96 });
  });

  test('has the parts that there are', async () => {
    const html = await reportToHtml({ ...report(), tables: [], figures: [], examples: [] });
    expect(html).not.toMatch(/<h2>(Results|Figures|Worked examples)/);
    expect(html).toContain('<h2>How to repeat this</h2>');
    expect(await reportToHtml(report())).not.toContain('<img');
  });

  test('says which picture it cannot use', async () => {
    await expectError(() => reportToHtml(report(join(folder, 'no.png'))), 'FILE_NOT_FOUND', /no\.png/);
    const path = join(folder, 'text.png');
    await writeFile(path, 'no picture');
    await expectError(() => reportToHtml(report(path)), 'IMAGE_INVALID', /text\.png is not a picture/);
  });
});
