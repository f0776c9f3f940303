import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import type { LensCell } from '../../src/lens/logit-lens.js';
import { barsToSvg } from '../../src/report/figures/bars.js';
import { heatmapToSvg } from '../../src/report/figures/heatmap.js';
import { pictureToSvg } from '../../src/report/figures/picture.js';
import { piesToSvg } from '../../src/report/figures/pies.js';
import { svgToPng } from '../../src/report/figures/png.js';
import { scatterToSvg } from '../../src/report/figures/scatter.js';
import { textWidth } from '../../src/report/figures/svg.js';
import type { LensView, Pies, Scatter } from '../../src/report/report.js';
import { expectError } from './helpers.js';

const EVIL = '</text><script>alert("1")</script>\u0000\u202e\ud800&שלום';
const count = (text: string, part: string | RegExp) => text.split(part).length - 1;

/** Decodes an image of the SVG, and expects neither an empty nor a full one. */
async function expectDrawn(svg: string): Promise<void> {
  const image = sharp(await svgToPng(svg));
  const [, width, height] = /width="([\d.]+)" height="([\d.]+)"/.exec(svg) as unknown as [string, string, string];
  const { data, info } = await image.removeAlpha().greyscale().raw().toBuffer({ resolveWithObject: true });
  expect(Math.abs(info.width - 2 * Number(width))).toBeLessThanOrEqual(1);
  expect(Math.abs(info.height - 2 * Number(height))).toBeLessThanOrEqual(1);
  const dark = data.filter((value) => value < 128).length / data.length;
  expect(dark).toBeGreaterThan(0.002);
  expect(dark).toBeLessThan(0.6);
}

const pies: Pies = {
  title: 'Best tokens',
  pies: [
    {
      title: 'early',
      slices: [
        { label: 'input', count: 3, examples: [' the', '\n', EVIL] },
        { label: 'answer', count: 1 },
      ],
    },
    {
      title: 'late',
      slices: [
        { label: 'answer', count: 7 },
        { label: 'input', count: 0 },
      ],
    },
  ],
};

describe('pies', () => {
  test('have slices of the right size, percentages, n, one legend and what they say', async () => {
    const svg = piesToSvg(pies, 'text');
    // Three quarters clockwise from the top end at nine o'clock, the long way round.
    expect(svg).toContain('M0 0L0 -78A78 78 0 1 1 -78 0Z');
    expect(svg).toContain('>75 %</text>');
    expect(svg).toContain('>25 %</text>');
    expect(svg).toContain('>100 %</text>');
    expect(svg).toContain('>n = 4</text>');
    expect(svg).toContain('>n = 7</text>');
    expect(count(svg, '>input</text>')).toBe(1);
    expect(count(svg, 'data-tip=')).toBe(3);
    expect(svg).toContain('data-tip="input: 3 of 4 (75 %), e.g. ␣the, ⏎, ');
    await expectDrawn(piesToSvg(pies));
  });

  test('give a label the same colour and hatching everywhere, and labels different ones', () => {
    const labels = Array.from({ length: 12 }, (_, i) => `label ${i}`);
    const svg = piesToSvg(
      { title: '', pies: [{ title: '', slices: labels.map((label) => ({ label, count: 1 })) }] },
      'text',
    );
    const legend = svg.slice(0, svg.indexOf('<g data-tip'));
    const swatches = labels.map((label) =>
      legend
        .slice(0, legend.indexOf(`>${label}</text>`))
        .split('<rect y="-11"')
        .at(-1),
    );
    const looks = swatches.map((swatch) => swatch?.replace(/<text.*/s, ''));
    expect(new Set(looks).size).toBe(12);
    // The whole of the second pie is the label that is second in the first one: series 1.
    expect(piesToSvg(pies, 'text').split('answer: 7 of 7')[1]).toContain('series-1');
  });

  test('refuse what is not a share of anything', async () => {
    const refused = (slices: Pies['pies'][number]['slices']) =>
      expectError(() => piesToSvg({ title: 't', pies: [{ title: 'p', slices }] }), 'INVALID_ARGUMENT', /"p" of "t"/);
    await refused([]);
    await refused([{ label: 'a', count: 0 }]);
    await refused([{ label: 'a', count: Number.NaN }]);
    await refused([
      { label: 'a', count: -1 },
      { label: 'b', count: 2 },
    ]);
    await expectError(() => piesToSvg({ title: 't', pies: [] }), 'INVALID_ARGUMENT', /no pies/);
  });
});

const scatter: Scatter = {
  title: 'States',
  panels: ['t-SNE', 'PCA'].map((title) => ({
    title,
    xLabel: 'one',
    yLabel: 'two',
    points: [
      { x: 0, y: 0, colour: 'capital', shape: 'text', label: 'a' },
      { x: 10, y: -10, colour: 'capital', shape: 'image', label: 'b' },
      { x: 5, y: -5, colour: 'latin', shape: 'text', label: EVIL },
    ],
  })),
};

test('bars on a phone have names that end before their numbers, and say the whole name', () => {
  const label = 'Text Patch with the instruction and a question before the query, layer 17';
  const bars = { title: 't', xLabel: 'x', bars: [{ label, group: 'g', value: 0.5, low: 0.4, high: 0.6 }] };
  const svg = barsToSvg(bars, 'text', true);
  const [, name = ''] = />(Text Patch[^<]*)</.exec(svg) ?? [];
  expect(name).toMatch(/^Text Patch with .*…$/);
  expect(textWidth(name, 12) + textWidth('0.50 [0.40, 0.60]', 11)).toBeLessThan(316);
  expect(svg).toContain(`data-tip="${label}: 0.50 [0.40, 0.60]"`);
  expect(barsToSvg(bars, 'text')).toContain(`>${label}</text>`);
});

describe('scatter plots', () => {
  test('put points where they belong, with the colour and the shape of their names', async () => {
    const svg = scatterToSvg(scatter, 'text');
    const marks = [
      ...svg.matchAll(/<path transform="translate\(([\d.]+) ([\d.]+)\)" d="([^"]+)" fill="([^"]+)" opacity/g),
    ];
    expect(marks).toHaveLength(6);
    const [a, b, c] = marks as [RegExpExecArray, RegExpExecArray, RegExpExecArray];
    // 330 x 270 pixels, the range of the points and 6 % on both sides: y grows upwards.
    const at = (share: number, length: number) => ((share + 0.06) / 1.12) * length;
    expect(Number(a[1])).toBeCloseTo(at(0, 330), 1);
    expect(Number(a[2])).toBeCloseTo(at(0, 270), 1);
    expect(Number(b[1])).toBeCloseTo(at(1, 330), 1);
    expect(Number(b[2])).toBeCloseTo(at(1, 270), 1);
    expect([Number(c[1]), Number(c[2])]).toEqual([165, 135]);
    expect([a[3] === b[3], a[3] === c[3], a[4] === b[4], a[4] === c[4]]).toEqual([false, true, true, false]);
    expect(svg).toContain('data-tip="b (capital, image)"');
    for (const text of ['capital', 'latin', 'text', 'image']) expect(count(svg, `>${text}</text>`)).toBe(1);
    await expectDrawn(scatterToSvg(scatter));
  });

  test('may be of one point, and refuse what cannot be drawn or told apart', async () => {
    const of = (points: readonly Partial<Scatter['panels'][number]['points'][number]>[]): Scatter => ({
      title: 't',
      panels: [
        {
          title: '',
          xLabel: '',
          yLabel: '',
          points: points.map((point) => ({ x: 1, y: 1, colour: 'c', shape: 's', label: '', ...point })),
        },
      ],
    });
    expect(scatterToSvg(of([{}]))).not.toMatch(/NaN|Infinity/);
    await expectError(() => scatterToSvg(of([])), 'INVALID_ARGUMENT', /without points/);
    await expectError(() => scatterToSvg({ title: 't', panels: [] }), 'INVALID_ARGUMENT', /without points/);
    await expectError(() => scatterToSvg(of([{ x: Number.NaN }])), 'INVALID_ARGUMENT', /not finite/);
    const colours = Array.from({ length: 17 }, (_, i) => ({ colour: `c${i}` }));
    expect(scatterToSvg(of(colours.slice(0, 16)))).toContain('<svg');
    await expectError(() => scatterToSvg(of(colours)), 'INVALID_ARGUMENT', /17 colours and 1 shapes/);
    const shapes = Array.from({ length: 7 }, (_, i) => ({ shape: `s${i}` }));
    await expectError(() => scatterToSvg(of(shapes)), 'INVALID_ARGUMENT', /1 colours and 7 shapes/);
  });
});

const cell = (text: string, probability: number): LensCell => ({
  top: [{ token: 1, text, logit: 1, probability }],
  tokens: [],
  entropy: 1,
  kl: 0,
});
/** Layers 5 and 2, in this order, over a text token, a picture of 2 x 2 patches with a separator after each line, and `n` tokens. */
function lensView(n: number): LensView {
  const nPositions = 7 + n;
  const word = (layer: number, p: number) => (p === 0 ? EVIL : `${layer}.${p}`);
  return {
    title: 'Lens',
    lens: {
      layers: [5, 2],
      positions: Array.from({ length: nPositions }, (_, p) => p + 10),
      cells: [5, 2].map((layer) => Array.from({ length: nPositions }, (_, p) => cell(word(layer, p), p / nPositions))),
      settled: Array.from({ length: nPositions }, () => 5),
    },
    inputs: Array.from({ length: nPositions }, (_, p) =>
      p > 0 && p < 7 ? { text: '', kind: 'image' } : { text: `in${p}`, kind: 'token' },
    ),
    pictures: [
      {
        first: 11,
        picture: { data: new Uint8Array(30 * 30 * 3).fill(120), width: 30, height: 30, hash: '' },
        grid: [
          { x: 0, y: 0, width: 15, height: 15 },
          { x: 15, y: 0, width: 15, height: 15 },
          undefined,
          { x: 0, y: 15, width: 15, height: 15 },
          { x: 15, y: 15, width: 15, height: 15 },
          undefined,
        ],
      },
    ],
    notes: ['A note.'],
  };
}

/** The texts of an SVG of outlines, from top to bottom and left to right, as their letters say. */
const words = (svg: string): { text: string; x: number; y: number }[] =>
  [
    ...svg.matchAll(
      /<g transform="translate\((-?[\d.]+) (-?[\d.]+)\)[^"]*" fill="[^"]*"[^>]*>((?:<use[^>]*\/>)+)<\/g>/g,
    ),
  ].map(([, x, y, uses]) => ({
    text: [...(uses as string).matchAll(/#g([0-9a-f]+)/g)]
      .map(([, code]) => String.fromCodePoint(Number.parseInt(code as string, 16)))
      .join(''),
    x: Number(x),
    y: Number(y),
  }));

describe('heatmaps', () => {
  test('have the highest layer on top, tokens in their columns and words in their cells', async () => {
    const svg = heatmapToSvg(lensView(3));
    const found = words(svg);
    const of = (text: string) => found.find((word) => word.text === text) as (typeof found)[number];
    expect(of('5.8').y).toBeLessThan(of('2.8').y);
    expect(of('5.8').x).toBe(of('2.8').x);
    expect(of('5.8').x).toBe(of('in8').x);
    expect(of('18').x).toBe(of('in8').x);
    expect(of('5.9').x - of('5.8').x).toBe(58);
    // The rows of the picture are drawn elsewhere, and the gap shows; the note says so.
    expect(of('5.7').x - of('in0').x).toBeGreaterThan(58);
    expect(of('5.3')).toBeUndefined();
    expect(found.map((word) => word.text)).toContain('Anote.');
    expect(found.map((word) => word.text).join('')).toContain('Shown:4of10positions,withouttherowsofpictures.');
    await expectDrawn(svg);
  });

  test('show at most 24 positions, and rows of pictures that are drawn nowhere else', () => {
    const long = words(heatmapToSvg(lensView(100))).map((word) => word.text);
    expect(long).toContain(
      'Shown:24of107positions,thelastones,withouttherowsofpictures.ThenumbersofallareintheCSVandJSONfiles.',
    );
    expect(long).not.toContain('in82');
    expect(long).toContain('in83');
    expect(long).toContain('in106');
    const pooled = {
      ...lensView(0),
      pictures: [{ ...(lensView(0).pictures[0] as never as LensView['pictures'][number]), grid: { reason: 'pools' } }],
    };
    expect(words(heatmapToSvg(pooled)).map((word) => word.text)).toContain('5.3');
  });

  test('refuse a lens that is none', async () => {
    const view = lensView(1);
    const refused = (lens: Partial<LensView['lens']>) =>
      expectError(() => heatmapToSvg({ ...view, lens: { ...view.lens, ...lens } }), 'INVALID_ARGUMENT', /"Lens" needs/);
    await refused({ layers: [], cells: [] });
    await refused({ positions: [] });
    await refused({ cells: [] });
    await refused({ cells: view.lens.cells.map((row) => row.map((one) => ({ ...one, top: [] }))) });
    await refused({ cells: view.lens.cells.map((row) => row.map(() => cell('x', Number.NaN))) });
    await expectError(() => heatmapToSvg({ ...view, inputs: [] }), 'INVALID_ARGUMENT', /needs/);
  });
});

describe('pictures with words', () => {
  test('have each word on its patch, for every layer shown, and none for separators', async () => {
    const view = lensView(1);
    const picture = view.pictures[0] as LensView['pictures'][number];
    const svg = await pictureToSvg(view, picture);
    const found = words(svg).filter((word) => /^\d\.\d$/.test(word.text));
    expect(found.map((word) => word.text)).toEqual(['2.1', '2.2', '2.4', '2.5', '5.1', '5.2', '5.4', '5.5']);
    // 30 pixels of the picture are drawn 220 wide: words stand in the middle of patches of 110.
    expect(found.slice(0, 4).map((word) => word.x)).toEqual([55, 165, 55, 165]);
    expect((found[2]?.y as number) - (found[0]?.y as number)).toBeCloseTo(110, 1);
    expect(count(svg, '<image')).toBe(2);
    const encoded = /data:image\/jpeg;base64,([^"]+)"/.exec(svg)?.[1] ?? '';
    expect(await sharp(Buffer.from(encoded, 'base64')).metadata()).toMatchObject({ width: 30, height: 30 });
    await expectDrawn(svg);
  });

  test('refuse a picture without a grid, saying why, and a lens beside the picture', async () => {
    const view = lensView(1);
    const picture = view.pictures[0] as LensView['pictures'][number];
    const pooled = { ...picture, grid: { reason: 'The projector pools all patches.' } };
    await expectError(() => pictureToSvg(view, pooled), 'INVALID_ARGUMENT', /pools all patches/);
    await expectError(
      () => pictureToSvg(view, { ...picture, first: 900 }),
      'INVALID_ARGUMENT',
      /none of its positions/,
    );
  });
});

test('hostile names and words are dead in every figure', async () => {
  const evilPies = {
    title: EVIL,
    notes: [EVIL],
    pies: [{ title: EVIL, slices: [{ label: EVIL, count: 1, examples: [EVIL] }] }],
  };
  const point = { x: 0, y: 0, colour: EVIL, shape: EVIL, label: EVIL };
  const evilScatter = {
    title: EVIL,
    notes: [EVIL],
    panels: [{ title: EVIL, xLabel: EVIL, yLabel: EVIL, points: [point] }],
  };
  const view = {
    ...lensView(1),
    title: EVIL,
    notes: [EVIL],
    inputs: lensView(1).inputs.map((input) => ({ ...input, text: EVIL })),
  };
  const svgs = [
    piesToSvg(evilPies, 'text'),
    piesToSvg(evilPies),
    scatterToSvg(evilScatter, 'text'),
    scatterToSvg(evilScatter),
    heatmapToSvg(view),
    await pictureToSvg(view, view.pictures[0] as LensView['pictures'][number]),
  ];
  for (const svg of svgs) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not appear
    expect(svg).not.toMatch(/<script|[\u0000-\u0008\u202e]|\p{Cs}/u);
    expect(await sharp(Buffer.from(svg)).metadata()).toMatchObject({ format: 'svg' });
  }
});
