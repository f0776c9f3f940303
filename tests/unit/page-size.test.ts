// Reports larger than a page may be: they are written, and say what the page leaves out.
import { describe, expect, test } from '@jest/globals';
import { PatchMap } from '../../src/circuits/patch-layers.js';
import { patchMapReport } from '../../src/report/circuits.js';
import { embedding } from '../../src/report/embedding.js';
import { scatterToSvg } from '../../src/report/figures/scatter.js';
import { reportToHtml } from '../../src/report/page/page.js';
import type { Block, Report } from '../../src/report/report.js';
import type { EmbeddingOptions } from '../../src/studies/embedding.js';
import { sampleLens, sampleReport } from './lens-samples.js';

const ABOUT = { title: 'T', notes: [], introduction: [], provenance: {} };
const MAX = 5_000_000;

/** The report of an embedding of so many points. */
function embedded(tasks: number, each: number): Report {
  const prompts = Array.from({ length: tasks * each }, (_, i) => ({
    task: `some-task-${i % tasks}`,
    domain: 'd',
    modality: 'text' as const,
    seed: 1,
    item: `${i}`,
    examples: ['Nicosia', 'Tallinn', 'Canberra', 'Asunción', 'Port Louis'].map((word) => `${word} ${i}`),
  }));
  const place = prompts.map((_, i): [number, number] => [Math.cos(i), Math.sin(i)]);
  const space = { layer: 3, tsne: place, pca: { points: place, explained: [0.5, 0.25] as const }, scores: {} };
  const spaces = (['context', 'context', 'delimiter'] as const).map((of) => ({ of, ...space }));
  const estimate = { value: 0.5, low: 0.4, high: 0.6, n: 3, items: 3 };
  const parts = [{ prompts }, { layer: 3, neighbours: 10, spaces, byLayer: { 'silhouette by task': [estimate] } }];
  return embedding.report(parts, {} as EmbeddingOptions, ABOUT) as Report;
}

function blockOf<K extends Block['kind']>({ blocks }: Report, kind: K): Extract<Block, { kind: K }> {
  return blocks.find((block) => block.kind === kind) as Extract<Block, { kind: K }>;
}

const drawings = (html: string) => html.match(/<figure class="drawn[^"]*">/g);
const leftOut = (html: string) =>
  [...html.matchAll(/To stay under 5 MB this page leaves out ([^<]*)</g)].map((match) => match[1]);

describe('an embedding', () => {
  test('of more tasks than there are colours gives the last of them one together', () => {
    const coloursOf = (tasks: number) => {
      const { scatter } = blockOf(embedded(tasks, 3), 'scatter');
      expect(scatterToSvg(scatter)).toContain('<svg');
      const colours = new Set(scatter.panels.flatMap(({ points }) => points.map(({ colour }) => colour)));
      return { count: colours.size, others: colours.has('other tasks'), notes: scatter.notes?.join(' ') };
    };
    expect(coloursOf(16)).toMatchObject({ count: 16, others: false, notes: expect.not.stringContaining('share') });
    const notes = expect.stringContaining('The last 5 tasks share a colour');
    expect(coloursOf(20)).toMatchObject({ count: 16, others: true, notes });
  });

  test('of many points is drawn once, for wide screens and for phones; of few it is drawn for each', async () => {
    const small = await reportToHtml(embedded(6, 20));
    expect(drawings(small)).toHaveLength(6);
    expect(leftOut(small)).toEqual([]);
    const html = await reportToHtml(embedded(6, 300));
    expect(html.length).toBeLessThan(MAX);
    expect(drawings(html)).toHaveLength(5);
    expect(drawings(html)?.[0]).toBe('<figure class="drawn">');
    expect(leftOut(html)).toEqual(['the drawing for phones; beside it is figures/tsne.svg.']);
  });

  test('of more points than a page can hold is named there', async () => {
    const html = await reportToHtml(embedded(6, 1000));
    expect(html.length).toBeLessThan(MAX);
    expect(leftOut(html)).toContain('the figure; beside it is figures/tsne.svg.');
    expect(html).toContain('Last delimiters at every layer');
  });
});

describe('a patching map', () => {
  test('of many positions is a grid, without its table', async () => {
    const positions = Array.from({ length: 5000 }, (_, p) => p);
    const values = Float64Array.from({ length: 30 * 5000 }, (_, i) => i / 7);
    const layers = Array.from({ length: 30 }, (_, l) => l);
    const map = new PatchMap(layers, positions, positions, values, 1, -1);
    const report = patchMapReport(
      map,
      positions.map(() => ['a', 'b'] as const),
      'metric',
      ABOUT,
    );
    expect(blockOf(report, 'table').table).toMatchObject({ shade: [-1, values.at(-1)] });
    const html = await reportToHtml(report);
    expect(html.length).toBeLessThan(MAX);
    expect(leftOut(html)).toEqual(['the table; beside it is tables/map.csv.']);
    const data = JSON.parse(/id="page-data">(.*)<\/script>/.exec(html)?.[1] ?? '') as { maps: object; tables: object };
    expect([Object.keys(data.maps), Object.keys(data.tables)]).toEqual([['map'], []]);
  });
});

test('a lens keeps its room beside a table that has none', async () => {
  const rows = Array.from({ length: 35_000 }, (_, i) => [`row ${i}`, i]);
  const table = { title: 't', columns: [{ name: 'a' }, { name: 'b' }], rows, notes: [] };
  const lens = sampleLens({ layers: [0, 1], positions: 50 });
  const html = await reportToHtml(
    sampleReport([
      { kind: 'table', name: 'long', heading: 'Long', table },
      { kind: 'lens', name: 'lens', heading: 'Lens', lens },
    ]),
  );
  expect(html.length).toBeLessThan(MAX);
  expect(leftOut(html)).toEqual(['the texts to copy; beside it is tables/long.csv.']);
  expect(html).not.toContain('this page holds');
});
