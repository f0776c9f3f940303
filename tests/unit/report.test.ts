import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import type { Cell, Table } from '../../src/evaluation/tables.js';
import { type Report, reportToHtml } from '../../src/report/html.js';
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

const figure = '<svg xmlns="http://www.w3.org/2000/svg"></svg>';
const count = (text: string, part: string | RegExp) => text.split(part).length - 1;

describe('HTML report', () => {
  const evil = '"><script>alert(1)</script>';
  const report = (picture?: string): Report => ({
    title: evil,
    introduction: [evil],
    tables: [table, hostile],
    figures: [{ svg: figure, caption: evil }],
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
