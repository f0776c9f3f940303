import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import sharp from 'sharp';
import { RunFolder } from '../../src/experiment/run-folder.js';
import type { PromptLens } from '../../src/lens/prompt-lens.js';
import { lensTable, reportOfLens } from '../../src/report/lens.js';
import type { Block, LensView, Report, TextTable } from '../../src/report/report.js';
import { sweepReport } from '../../src/report/sweep.js';
import { tableToCsv } from '../../src/report/tables.js';
import { writeReport } from '../../src/report/write-report.js';
import { expectError, temporaryFolder } from './helpers.js';
import { sampleManifest } from './run-samples.js';

const parent = await temporaryFolder();
const PAGE = sampleManifest({ plan: [] });
const EVIL = '<script>alert(1)</script>"\u0000,\r\nשלום\u202e中';
/** As a CSV file has it. */
const SHOWN = EVIL.replace('\0', '\\u{0}').replace('\r', '\\u{d}').replace('\u202e', '\\u{202e}');

const score = (text: string, probability: number) => ({
  token: text.charCodeAt(text.length - 1),
  text,
  logit: 0.1,
  probability,
});
const view: LensView = {
  title: 'Lens',
  lens: {
    layers: [0, 3],
    positions: [4, 5, 6],
    cells: [0, 3].map((layer) =>
      [4, 5, 6].map((p) => ({
        top: [score(EVIL, 0.5), score(`${layer}.${p}`, 0.25)],
        tokens: [],
        entropy: 1.5,
        kl: 0.5,
      })),
    ),
    settled: [3, 3, 0],
  },
  inputs: [
    { text: 'Q', kind: 'token' },
    { text: '', kind: 'image' },
    { text: '', kind: 'image' },
  ],
  pictures: [
    {
      first: 5,
      picture: { data: new Uint8Array(20 * 10 * 3).fill(90), width: 20, height: 10, hash: 'ab' },
      grid: [
        { x: 0, y: 0, width: 10, height: 10 },
        { x: 10, y: 0, width: 10, height: 10 },
      ],
    },
  ],
};
const panel = {
  title: EVIL,
  series: [
    {
      label: 's',
      points: [
        { x: 0, y: 0.1, low: 0, high: 0.2 },
        { x: 1, y: 1 / 3 },
      ],
    },
  ],
  baselines: [{ label: 'b', y: 0.5 }],
  verticals: [{ label: 'v', x: 0.5 }],
};
const blocks: Block[] = [
  { kind: 'curves', name: 'curves', heading: 'Curves', figure: { title: '', xLabel: '', yLabel: '', panels: [panel] } },
  {
    kind: 'pies',
    name: 'pies',
    heading: 'Pies',
    pies: { title: '', pies: [{ title: 'early', slices: [{ label: 'a,b', count: 3, examples: ['x"', EVIL] }] }] },
  },
  {
    kind: 'scatter',
    name: 'scatter',
    heading: 'Scatter',
    scatter: {
      title: '',
      panels: [
        { title: 'p', xLabel: '', yLabel: '', points: [{ x: 0.5, y: -2, colour: 'c', shape: 's', label: EVIL }] },
      ],
    },
  },
  { kind: 'lens', name: 'lens', heading: 'Lens', lens: view },
  {
    kind: 'table',
    name: 'texts',
    heading: 'Texts',
    table: { title: EVIL, columns: [{ name: 'a' }], rows: [[EVIL]], notes: [] },
  },
  {
    kind: 'examples',
    name: 'examples',
    heading: 'Examples',
    examples: [{ task: 't', query: 'q', expected: 'e', answers: [{ condition: 'c', answer: EVIL, correct: true }] }],
  },
];
const report: Report = { title: EVIL, introduction: [EVIL], blocks, provenance: { command: EVIL } };

/** Records of a CSV after RFC 4180. */
function parseCsv(text: string): string[][] {
  const records: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|$)/g)) {
    const record = records.at(-1) as string[];
    record.push(quoted === undefined ? (plain as string) : quoted.replaceAll('""', '"'));
    if (end === '\r\n') records.push([]);
    if (end === '') break;
  }
  records.pop();
  return records;
}

async function write(name: string, of: Report): Promise<(path: string) => Promise<string>> {
  const path = join(parent, name);
  await writeReport(await RunFolder.create(path, PAGE), of);
  return (file) => readFile(join(path, file), 'utf8');
}

test('every block becomes its files, pictures that show something and numbers that read back', async () => {
  const read = await write('all', report);
  const folder = join(parent, 'all');
  expect((await readdir(join(folder, 'figures'))).sort()).toEqual(
    [
      ...['curves', 'lens', 'pies', 'scatter'].flatMap((name) =>
        ['csv', 'json', 'png', 'svg'].map((e) => `${name}.${e}`),
      ),
      'lens.picture-1.png',
      'lens.picture-1.svg',
    ].sort(),
  );
  expect((await readdir(join(folder, 'tables'))).sort()).toEqual(
    ['examples', 'texts'].flatMap((name) => ['csv', 'md', 'tex', 'txt'].map((e) => `${name}.${e}`)),
  );
  for (const name of ['curves', 'lens', 'lens.picture-1', 'pies', 'scatter']) {
    expect(await read(`figures/${name}.svg`)).not.toMatch(/<script|<text|var\(/);
    const { channels } = await sharp(join(folder, 'figures', `${name}.png`)).stats();
    expect(Math.min(...channels.slice(0, 3).map(({ stdev }) => stdev))).toBeGreaterThan(2);
  }
  expect(await read('report.html')).not.toContain('<script>alert');

  const third = String(1 / 3);
  expect(parseCsv(await read('figures/curves.csv'))).toEqual([
    ['panel', 'kind', 'label', 'x', 'y', 'low', 'high'],
    [SHOWN, 'curve', 's', '0', '0.1', '0', '0.2'],
    [SHOWN, 'curve', 's', '1', third, '', ''],
    [SHOWN, 'baseline', 'b', '', '0.5', '', ''],
    [SHOWN, 'vertical', 'v', '0.5', '', '', ''],
  ]);
  expect(JSON.parse(await read('figures/curves.json')).panels).toEqual([panel]);
  expect(parseCsv(await read('figures/pies.csv'))[1]).toEqual([
    'early',
    'a,b',
    '3',
    '3',
    JSON.stringify(['x"', EVIL]).replace('\u202e', '\\u{202e}'),
  ]);
  expect(parseCsv(await read('figures/scatter.csv'))[1]).toEqual(['p', '0.5', '-2', 'c', 's', SHOWN]);
  const lens = parseCsv(await read('figures/lens.csv'));
  expect(lens).toHaveLength(1 + 2 * 3);
  expect(lens[1]).toEqual(['0', '4', 'token', 'Q', String('中'.charCodeAt(0)), SHOWN, '0.1', '0.5', '1.5', '0.5']);
  expect(lens[6]?.slice(0, 3)).toEqual(['3', '6', 'image']);
  const { cells, positions, settled, pictures } = JSON.parse(await read('figures/lens.json'));
  expect({ cells, positions, settled }).toEqual({
    cells: view.lens.cells,
    positions: [4, 5, 6],
    settled: [3, 3, 0],
  });
  expect(pictures).toEqual([{ width: 20, height: 10, hash: 'ab', first: 5, grid: view.pictures[0]?.grid }]);
  expect(parseCsv(await read('tables/examples.csv'))[1]).toEqual(['t', 'q', 'e', 'c', SHOWN, 'yes']);
});

test('the same report gives the same bytes', async () => {
  const [a, b] = [await write('first', report), await write('second', report)];
  const files = [
    'report.html',
    'tables/texts.tex',
    'figures/lens.json',
    'figures/pies.svg',
    'figures/lens.picture-1.svg',
  ];
  for (const file of files) expect(await a(file)).toBe(await b(file));
});

test('names that are not file names, or stand twice, are refused before anything is written', async () => {
  for (const name of ['../x', 'a/b', '', 'A', '.x', 'curves', 'a'.repeat(65)]) {
    const folder = await RunFolder.create(join(parent, `name-${name.length}-${Math.random()}`), PAGE);
    const twice = { ...report, blocks: [blocks[0] as Block, { ...(blocks[1] as Block), name }] };
    await expectError(() => writeReport(folder, twice), 'INVALID_ARGUMENT', /cannot name a block/);
    await folder.close();
    expect(await readdir(folder.path)).toEqual(['manifest.json']);
  }
});

test('an aborted report ends before its next block', async () => {
  const folder = await RunFolder.create(join(parent, 'aborted'), PAGE);
  await expectError(() => writeReport(folder, report, { signal: AbortSignal.abort() }), 'ABORTED', /not finished/);
  await folder.close();
  expect(await readdir(folder.path)).toEqual(['manifest.json']);
});

test('a lens of many positions is written in little memory, whole', async () => {
  const n = 3000;
  const positions = Array.from({ length: n }, (_, p) => p);
  const lens = {
    layers: [0, 1, 2, 3],
    positions,
    cells: [0, 1, 2, 3].map(() => positions.map(() => ({ top: [score('word', 0.5)], tokens: [], entropy: 0, kl: 0 }))),
    settled: positions,
  };
  const inputs = positions.map(() => ({ text: 'w', kind: 'token' as const }));
  const read = await write('long', {
    ...report,
    blocks: [{ kind: 'lens', name: 'lens', heading: '', lens: { title: '', lens, inputs, pictures: [] } }],
  });
  expect(JSON.parse(await read('figures/lens.json')).cells[3]).toHaveLength(n);
  expect((await read('report.html')).length).toBeLessThan(5e6);
  expect((await sharp(join(parent, 'long', 'figures', 'lens.png')).metadata()).width).toBeLessThan(3200);
});

test('followed tokens of a lens that have one text are told apart', () => {
  const [a, b] = [score('\ufffd', 0.5), { ...score('\ufffd', 0.25), token: 7 }];
  const cell = {
    top: [a, b],
    tokens: [a, b, score('c', 0.1)].map((one, rank) => ({ ...one, rank })),
    entropy: 1,
    kl: 0,
  };
  const lens = { layers: [0, 1], positions: [0], cells: [[cell], [cell]], settled: [0] };
  const found = {
    model: { identity: { name: 'm' }, detokenize: () => 'x' },
    prompt: { tokens: [1], pictures: [] },
    lens,
    last: lens,
    asked: 3,
    tuned: false,
  } as unknown as PromptLens;
  const { blocks: made } = reportOfLens(found, { provenance: {} });
  const labels = ['\ufffd (65533)', '\ufffd (7)', 'c'];
  const [curves] = made.flatMap((block) => (block.kind === 'curves' ? [block.figure] : []));
  expect(curves?.panels[0]?.series.map(({ label }) => label)).toEqual(labels);
  const [table] = made.flatMap((block) => (block.kind === 'table' ? [block.table as TextTable] : []));
  expect(table?.columns.slice(-3).map(({ name }) => name)).toEqual(labels.map((label) => `rank of ${label}`));
  expect(lensTable(found, 80)).toMatch(/\(65533\) +\ufffd \(7\) +c\n/);
});

test('a sweep becomes curves of its most probable tokens and a table', async () => {
  const sweep = {
    plain: { top: [score('no', 0.6), score('a', 0.1)], tracked: [] },
    layers: [
      { layer: 0, delta: 1.5, top: [score('no', 0.5), score('yes', 0.2)], tracked: [] },
      { layer: 1, delta: 2.5, top: [score('yes', 0.9), score(' x', 0.05)], tracked: [] },
    ],
    vectorModel: 'same' as const,
  };
  const about = { title: 't', introduction: [], provenance: {} };
  const [curves, table] = sweepReport(sweep, about).blocks;
  if (curves?.kind !== 'curves' || table?.kind !== 'table') throw new Error('not curves and a table');
  expect(curves.figure.panels[0]?.series).toEqual([
    {
      label: 'yes',
      points: [
        { x: 0, y: 0.2 },
        { x: 1, y: 0.9 },
      ],
    },
    { label: 'no', points: [{ x: 0, y: 0.5 }] },
    { label: '␣x', points: [{ x: 1, y: 0.05 }] },
  ]);
  expect(curves.figure.panels[0]?.baselines).toEqual([{ label: 'no without a patch', y: 0.6 }]);
  expect(table.table.rows).toEqual([
    [undefined, undefined, 'no', 0.6, 'a', 0.1],
    [0, 1.5, 'no', 0.5, 'yes', 0.2],
    [1, 2.5, 'yes', 0.9, '␣x', 0.05],
  ]);
  const heads = tableToCsv(table.table).split('\r\n')[0]?.split(',') ?? [];
  expect(heads).toContain('token 1: probability');
  expect(new Set(heads).size).toBe(heads.length);
  const single = sweepReport({ ...sweep, layers: sweep.layers.slice(0, 1) }, about).blocks;
  expect(single.map((block) => block.kind)).toEqual(['table']);
});
