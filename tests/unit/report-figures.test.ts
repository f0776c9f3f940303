import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { escapeXml } from '../../src/report/figures/escape-xml.js';
import { type Figure, figureToSvg } from '../../src/report/figures/figure.js';
import { piesToSvg } from '../../src/report/figures/pies.js';
import { figureToPng } from '../../src/report/figures/png.js';
import { fitText, svgText, textWidth, wrapText } from '../../src/report/figures/svg.js';
import { expectError } from './helpers.js';

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
    const svg = figureToSvg(figure, 'text');
    for (const text of ['Validation accuracy by layer', 'layer', 'accuracy', 'one', 'four', 'Bands: 95 %.']) {
      expect(svg).toContain(`>${text}</text>`);
    }
    expect(count(svg, '>Text Patch</text>')).toBe(1);
    expect(count(svg, 'fill-opacity="0.15"')).toBe(8);
    expect(count(svg, 'a3.7 3.7')).toBe(4 * 4 * 2 + 2);
    expect(count(svg, 'stroke-dasharray="1 4"')).toBe(4 + 1);
    expect(count(svg, '>chosen layer</text>')).toBe(1);
    // Panels one to four and the legend; points 0 to 3 lie 12 from both sides of 250.
    expect(count(svg, `d="M${String(Math.round((12 + (2 / 3) * 226) * 100) / 100)} 0V170"`)).toBe(4);
    expect(svg).toContain('font-family="sans-serif"');
  });

  test.each([
    ['accuracy', 12],
    ['KL to the final distribution of the model without any intervention at all (nats)', 8],
  ])('have a y label that is no longer than their panels: %s', (yLabel, least) => {
    const svg = figureToSvg({ ...figure, panels: figure.panels.slice(0, 2), yLabel }, 'text');
    const [, size] = /rotate\(-90\)" font-size="([\d.]+)"/.exec(svg) ?? [];
    expect(Number(size)).toBeGreaterThan(least - 5);
    expect(Number(size)).toBeLessThanOrEqual(12);
    expect(textWidth(yLabel, Number(size))).toBeLessThanOrEqual(170 + 26 + 1e-6);
  });

  test('have several vertical lines, each with its own dashes, and no band without an interval', () => {
    const panel = {
      title: '',
      series: [
        {
          label: 's',
          points: [
            { x: 0, y: 0 },
            { x: 4, y: 1 },
          ],
        },
      ],
      verticals: [
        { label: 's', x: 1 },
        { label: 'b', x: 2.5 },
        { label: 'c', x: 3 },
      ],
    };
    const svg = figureToSvg({ ...figure, panels: [panel] }, 'text');
    expect(svg).not.toContain('fill-opacity');
    // The name of a curve may be the name of a line too: both stand in the legend.
    expect(count(svg, '>s</text>')).toBe(2);
    const lines = [...svg.matchAll(/d="M([\d.]+) 0V300"[^/]*?(?:stroke-dasharray="([^"]+)"[^/]*)?\/>/g)];
    expect(lines.map((match) => match[1])).toEqual(['146', '347', '414']);
    expect(new Set(lines.map((match) => match[2])).size).toBe(3);
  });

  test('take the colours of the page and say every point there, and have literal ones in a file', () => {
    const page = figureToSvg(figure, 'text');
    expect(page).toContain('var(--series-0,#0072B2)');
    expect(page).not.toMatch(/(fill|stroke)="#/);
    expect(count(page, 'data-tip=')).toBe(4 * (2 * 4 + 2));
    expect(page).toContain('data-tip="chosen layer: 2"');
    expect(page).toContain('data-tip="Text Prompt: 0.05"');
    expect(page).toContain('data-tip="Text Patch, 3: 0.3 [0.25, 0.375]"');
    const file = figureToSvg(figure);
    expect(file).not.toMatch(/var\(|data-tip|<text/);
    expect(figureToSvg(figure)).toBe(file);
  });

  test('of one page give a label the same colour, whatever stands beside it', () => {
    const curve = (label: string) => ({ label, points: [{ x: 0, y: 0.5 }] });
    const draw = (labels: string[]) =>
      figureToSvg(
        { ...figure, panels: [{ title: '', series: labels.map(curve) }], colourOrder: ['input', 'task', 'answer'] },
        'text',
      );
    const slice = (label: string) => ({ label, count: 1 });
    const pie = piesToSvg(
      { title: '', pies: [{ title: '', slices: [slice('answer')] }], colourOrder: ['input', 'task', 'answer'] },
      'text',
    );
    const colours = (svg: string) => [...new Set([...svg.matchAll(/--series-(\d)/g)].map(([, i]) => Number(i)))];
    expect(colours(draw(['answer', 'mine', 'task']))).toEqual(expect.arrayContaining([2, 3, 1]));
    expect(colours(draw(['answer']))).toEqual([2]);
    expect(colours(pie)).toEqual([2]);
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
    expect(figureToSvg(single)).toContain('translate(12 150)');
  });

  test('break a curve where it has no point and another one has', () => {
    const curve = (label: string, ...xs: number[]) => ({
      label,
      points: xs.map((x) => ({ x, y: 0, low: 0, high: 1 })),
    });
    const gap = { ...figure, panels: [{ title: '', series: [curve('all', 0, 1, 2, 3, 4), curve('some', 0, 1, 3)] }] };
    const svg = figureToSvg(gap);
    expect(svg).toContain('d="M12 300L146 300L280 300L414 300L548 300"');
    expect(svg).toContain('d="M12 300L146 300M414 300"');
    expect(svg).toContain('d="M12 0L146 0L146 300L12 300ZM414 0L414 300Z"');
    // What nothing lies between stays one line.
    expect(figureToSvg({ ...gap, panels: [{ title: '', series: [curve('some', 0, 1, 4)] }] })).toContain(
      'd="M12 300L146 300L548 300"',
    );
  });

  test('tick whole layers only, at round numbers', () => {
    const layers = (n: number): Figure => ({
      ...figure,
      panels: [{ title: '', series: [{ label: 's', points: Array.from({ length: n }, (_, x) => ({ x, y: 0.5 })) }] }],
    });
    const ticks = (n: number) =>
      [...figureToSvg(layers(n), 'text').matchAll(/text-anchor="middle">(\d+(?:\.\d+)?)<\/text>/g)].map(
        (match) => match[1],
      );
    expect(ticks(4)).toEqual(['0', '1', '2', '3']);
    expect(ticks(8)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
    expect(ticks(33)).toEqual(['0', '5', '10', '15', '20', '25', '30']);
  });

  test('tick shares where points are at shares', () => {
    const points = [0.25, 0.5, 0.75].map((x) => ({ x, y: 0.5 }));
    const svg = figureToSvg({ ...figure, panels: [{ title: '', series: [{ label: 's', points }] }] }, 'text');
    for (const x of ['0.3', '0.5', '0.7']) expect(svg).toContain(`text-anchor="middle">${x}</text>`);
  });

  test('tell any number of baselines and vertical lines apart', () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
    const panel = {
      title: '',
      series: [{ label: 's', points: [{ x: 0, y: 0 }] }],
      baselines: names.map((label) => ({ label, y: 0.5 })),
      verticals: names.map((label) => ({ label, x: 0 })),
    };
    const svg = figureToSvg({ ...figure, panels: [panel] });
    const lines = [...svg.matchAll(/<path d="([^"]+)"([^>]*)\/>/g)];
    const looks = (path: string) => lines.filter((match) => match[1] === path).map((match) => match[2]);
    // As the legend has them, where that of the curve comes first.
    for (const path of ['M0 -4H26', 'M13 -12V4']) expect(new Set(looks(path)).size).toBe(looks(path).length);
    expect([looks('M0 -4H26').length, looks('M13 -12V4').length]).toEqual([8, 7]);
  });

  test('escape hostile text', () => {
    const evil = '</text><script>alert("1")</script>\u0000&';
    const hostile: Figure = {
      ...figure,
      title: evil,
      xLabel: evil,
      notes: [evil],
      panels: [
        {
          title: evil,
          series: [{ label: evil, points: [{ x: 0, y: 0 }] }],
          baselines: [{ label: evil, y: 0 }],
          verticals: [{ label: evil, x: 0 }],
        },
      ],
    };
    const svg = figureToSvg(hostile, 'text');
    for (const text of [svg, figureToSvg(hostile)]) {
      expect(text).not.toContain('<script');
      expect(text).not.toContain('\u0000');
    }
    expect(svg).toContain('data-tip="&lt;/text&gt;&lt;script&gt;');
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
    // DejaVu Sans: M is 863, i is 278 thousandths of an em wide.
    expect(textWidth('Mi', 10)).toBeCloseTo(11.41, 6);
    // No outline: set as U+6F22, seven letters of DejaVu Sans.
    expect(textWidth('漢', 1000)).toBe(textWidth('U+6F22', 1000));
    expect(wrapText('iii iii iii', 10, 25)).toEqual(['iii iii', 'iii']);
    expect(wrapText('MMMMMMMM ii', 10, 20)).toEqual(['MMMMMMMM', 'ii']);
    expect(fitText('iiii', 10, 12)).toBe('iiii');
    expect(fitText('iiiiMMMM', 10, 22)).toBe('iiii…');
  });

  test('define each outline once, and set what has none as its code point', () => {
    const file = figureToSvg({ ...figure, title: 'aa 中 e\u0301', notes: [] });
    expect(count(file, 'id="g61"')).toBe(1);
    // Decomposed letters are composed; a Chinese one is U+4E2D.
    expect(file).toContain('id="ge9"');
    expect(file).not.toContain('id="g4e2d"');
    const ids = new Set([...file.matchAll(/id="(g[0-9a-f]+)"/g)].map((match) => match[1]));
    const used = new Set([...file.matchAll(/xlink:href="#(g[0-9a-f]+)"/g)].map((match) => match[1]));
    expect([...used].sort()).toEqual([...ids].sort());
    const set = (text: string) => svgText('outlines', 0, 0, text, { size: 10 });
    expect(set('中')).toBe(set('U+4E2D'));
    expect(set('a中国b')).toBe(set('aU+4E2D U+56FDb'));
    for (const letter of 'Ġ▁␣␍⇥⏎∅Čžß') expect(textWidth(letter, 10)).not.toBe(textWidth(`U+${letter}`, 10));
  });
});

describe('escaping', () => {
  test('covers markup, quotes, forbidden characters and lone surrogates, and keeps the rest', () => {
    expect(escapeXml(`<a b="c" d='e'>&amp;`)).toBe('&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;amp;');
    expect(escapeXml('a\u0000\u001b\ufffe\ud800\u202e\u2066b\n\tc')).toBe('ab\n\tc');
    expect(escapeXml('é漢🍎')).toBe('é漢🍎');
  });
});
