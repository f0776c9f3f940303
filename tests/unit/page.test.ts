// The report as one file: what is in it, what cannot get into it, and that a lens comes out of it as it went in.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { scaleColours, scaleRules } from '../../src/report/figures/colour-scale.js';
import { STEPS } from '../../src/report/figures/steps.js';
import { LensData } from '../../src/report/page/client/lens-data.js';
import { encodeLens, fitLenses } from '../../src/report/page/lens-data.js';
import type { EncodedLens } from '../../src/report/page/lens-encoding.js';
import { builtFile, cutNote, reportToHtml } from '../../src/report/page/page.js';
import { json, percent, textHtml, tokenHtml, tokenLabel } from '../../src/report/page/text.js';
import type { Block, WorkedExample } from '../../src/report/report.js';
import type { Table } from '../../src/stats/tables.js';
import { expectError, temporaryFolder } from './helpers.js';
import { sampleLens, sampleReport } from './lens-samples.js';

const folder = await temporaryFolder();
const SCRIPT = '</script><script>alert(1)</script><img src=x onerror=alert(1)>';
const HOSTILE = `${SCRIPT}<!--\u202e\u0000\u001b[31m\ud800"'&\u2028`;

const table: Table = {
  title: HOSTILE,
  corner: 'Condition',
  columns: [HOSTILE, 'mean'],
  rows: [{ label: HOSTILE, cells: [{ value: 0.625, low: 0.5678, high: 1, n: 300, items: 151 }, undefined] }],
  notes: [HOSTILE],
};
const example = (picture?: string): WorkedExample => ({
  task: HOSTILE,
  ...(picture && { picture }),
  query: HOSTILE,
  expected: HOSTILE,
  answers: [
    { condition: HOSTILE, answer: HOSTILE, correct: false },
    { condition: 'No Context', answer: '', correct: false },
  ],
});

describe('numbers in a page', () => {
  test('percentages', () => {
    const shown = [1, 0.99949, 0.634, 0.0512, 0.00012, 3.1e-7, 0].map(percent);
    expect(shown).toEqual(['100 %', '99.9 %', '63.4 %', '5.12 %', '0.01 %', '3.1e-5 %', '0 %']);
  });
});

describe('a lens in a page', () => {
  test('comes out as it went in: layers sorted, tokens, probabilities, ranks, entropy, KL, settling', async () => {
    const view = sampleLens({ layers: [5, 0, 2], positions: 7, tracked: 2, vocabulary: 300 });
    const data = await LensData.decode(await encodeLens(view));
    expect(data.head.layers).toEqual([0, 2, 5]);
    expect(data.head.positions).toEqual(view.lens.positions);
    expect(data.head.settled.map((l) => data.head.layers[l])).toEqual(view.lens.settled);
    for (const [l, layer] of data.head.layers.entries()) {
      for (let p = 0; p < 7; p++) {
        const cell = view.lens.cells[view.lens.layers.indexOf(layer)]?.[p];
        const close = (scores: { token: number; text: string; probability: number }[] = []) =>
          scores.map(({ token, text, probability }) => ({
            token,
            text,
            probability: expect.closeTo(probability, 1.99 - Math.log10(probability)),
          }));
        expect(data.top(l, p)).toEqual(close(cell?.top).map((score, rank) => ({ ...score, rank })));
        expect(data.tracked(l, p)).toEqual(close(cell?.tokens).map((score, t) => ({ ...score, rank: 10 + t })));
        expect(data.entropy(l, p)).toBeCloseTo(cell?.entropy as number, 2);
        expect(data.kl(l, p)).toBeCloseTo(cell?.kl as number, 2);
      }
    }
    const entropies = view.lens.cells.flat().map(({ entropy }) => entropy);
    expect(data.maximum('entropy')).toBeCloseTo(Math.max(...entropies), 2);
    const pinned = view.lens.cells[0]?.[3]?.top[1];
    expect(data.find(2, 3, pinned?.token as number)).toMatchObject({ rank: 1, text: pinned?.text });
    expect(data.find(2, 3, 299)).toBeUndefined();
  });

  test('takes fewer ranks where there is no room, then the last positions', async () => {
    const view = sampleLens({ layers: [0, 1, 2, 3], positions: 400, topK: 5 });
    const all = (await fitLenses([view], 1e6))[0];
    expect(all).toMatchObject({ first: 0, nRanks: 5 });
    expect(all?.data.ranks.length).toBe(5);
    const size = JSON.stringify(all?.data).length;
    const fewer = (await fitLenses([view], size * 0.6))[0];
    expect(fewer?.first).toBe(0);
    expect(fewer?.data.ranks.length).toBeLessThan(5);
    const end = (await fitLenses([view], size * 0.2))[0];
    expect(end?.first).toBeGreaterThan(0);
    expect(cutNote(all)).toBe('');
    expect(cutNote(fewer)).toMatch(/this page holds the best [1-4] of 5 tokens of each cell/);
    expect(cutNote(end)).toMatch(/this page holds the last \d+ of 400 positions/);
    const data = await LensData.decode(end?.data as EncodedLens);
    expect(data.head.positions.at(-1)).toBe(399);
    expect(data.best(0, data.nPositions - 1).token).toBe(view.lens.cells[0]?.at(-1)?.top[0]?.token);
    await expectError(() => fitLenses([view], 10), 'INVALID_ARGUMENT', /fewer layers/);
  });

  test('refuses numbers that are not finite, and a lens without cells', async () => {
    const view = sampleLens({ layers: [0], positions: 2 });
    (view.lens.cells[0]?.[1] as { entropy: number }).entropy = Number.NaN;
    await expectError(() => encodeLens(view), 'NOT_FINITE', /NaN/);
    await expectError(() => encodeLens(sampleLens({ layers: [0], positions: 0 })), 'INVALID_ARGUMENT', /position/);
  });
});

describe('the colour scale', () => {
  /** Relative luminance of sRGB from 0 to 1, and contrast of two of them (WCAG 2.2). */
  const luminanceOf = (rgb: readonly number[]) => {
    const [r = 0, g = 0, b = 0] = rgb.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a: number, b: number) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

  test('has the light scheme in a browser that does not know light-dark', async () => {
    for (const rule of scaleRules().split('\n'))
      expect(rule).toMatch(/^\.q\d+\{background:#\w+;fill:#\w+;color:#\w+;background:light-dark/);
    const style = await builtFile('client.css');
    const [plain = '', ...both] = style.split('@supports');
    expect(both).toHaveLength(1);
    const named = (css: string) =>
      [...css.matchAll(/--([a-z]+(?:-\d)?):\s*(?:light-dark\()?(#\w+)/g)].map((match) => match.slice(1));
    expect(named(plain)).toEqual(named(both[0] ?? ''));
    expect(plain).not.toContain('light-dark');
    expect(named(plain)).toHaveLength(16);
  });

  test('has more than the contrast of AA on every step, and lightness that only falls or only rises', () => {
    const channels = (hex: string) => [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255);
    for (const [scheme, sign] of [
      ['light', -1],
      ['dark', 1],
    ] as const) {
      const pairs = scaleColours().map((both) => both[scheme]);
      expect(pairs).toHaveLength(STEPS);
      for (const { ground, ink } of pairs) {
        const [y, ours] = [ground, ink].map((hex) => luminanceOf(channels(hex))) as [number, number];
        expect(contrast(y, ours)).toBeGreaterThan(4.5);
        expect(contrast(y, ours)).toBeGreaterThanOrEqual(contrast(y, 1 - ours)); // the better of black and white
      }
      const luminances = pairs.map(({ ground }) => luminanceOf(channels(ground)));
      luminances.slice(1).forEach((y, i) => {
        expect(sign * (y - (luminances[i] as number))).toBeGreaterThan(0);
      });
    }
  });
});

describe('texts from models, files and prompts', () => {
  test('are escaped and show what cannot be seen', () => {
    expect(textHtml(HOSTILE)).toBe(
      '&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&lt;!--\\u{202e}\\u{0}\\u{1b}[31m\\u{d800}&quot;&#39;&amp;\u2028',
    );
    expect(textHtml('two  blanks\na line')).toBe('two  blanks\na line');
    expect(tokenHtml(' <b>\n')).toBe('<bdi class="token"><i>␣</i>&lt;b&gt;<i>⏎</i></bdi>');
    expect(tokenLabel('\u0301e')).toBe('◌\u0301e');
    expect(tokenLabel('a\u202eb\ud800')).toBe('a\\u{202e}b\\u{d800}');
    expect(tokenLabel('\ufffd')).toBe('\ufffd');
    expect(tokenLabel('')).toBe('∅');
  });

  test('cannot end the data of the page', () => {
    const text = json({ hostile: HOSTILE });
    expect(text).not.toMatch(/[<>&\u2028\u2029]/);
    expect(JSON.parse(text)).toEqual({ hostile: HOSTILE });
  });

  test('get in nowhere: no element, no address, no script but the one whose hash the policy names', async () => {
    const path = join(folder, 'flag.png');
    await sharp({ create: { width: 400, height: 200, channels: 3, background: '#ff0000' } })
      .withExif({ IFD0: { Artist: 'somebody' } })
      .png()
      .toFile(path);
    const lens = sampleLens({ layers: [0, 1], positions: 3, text: () => HOSTILE });
    const blocks: Block[] = [
      { kind: 'table', name: `"><img src=x>${HOSTILE}`, heading: HOSTILE, caption: HOSTILE, table },
      {
        kind: 'table',
        name: 'texts',
        heading: HOSTILE,
        table: { title: HOSTILE, columns: [{ name: HOSTILE }], rows: [[HOSTILE], [undefined]], notes: [HOSTILE] },
      },
      {
        kind: 'curves',
        name: 'curves',
        heading: HOSTILE,
        figure: {
          title: HOSTILE,
          xLabel: HOSTILE,
          yLabel: HOSTILE,
          panels: [{ title: HOSTILE, series: [{ label: HOSTILE, points: [{ x: 0, y: 1 }] }] }],
        },
      },
      { kind: 'lens', name: 'lens', heading: HOSTILE, lens: { ...lens, title: HOSTILE, notes: [HOSTILE] } },
      { kind: 'examples', name: 'examples', heading: HOSTILE, examples: [example(path)] },
    ];
    const html = await reportToHtml({
      title: HOSTILE,
      introduction: [HOSTILE],
      blocks,
      provenance: { [HOSTILE]: HOSTILE },
    });
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html).not.toMatch(/<img src=x/);
    expect(html).not.toMatch(/https?:\/\/(?!www\.w3\.org\/)/);
    expect(html).not.toMatch(/ (src|href)="(?!data:image\/png;base64,|#[^">]*")/);
    expect(html).toMatch(/default-src 'none'; img-src data:; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'/);
    const encoded = /src="data:image\/png;base64,([^"]+)"/.exec(html)?.[1] ?? '';
    expect(await sharp(Buffer.from(encoded, 'base64')).metadata()).toMatchObject({ width: 192, height: 96 });
    expect(Buffer.from(encoded, 'base64').includes('somebody')).toBe(false);
  });

  test('leave a report without blocks a page', async () => {
    const html = await reportToHtml(sampleReport([]));
    expect(html).toContain('<h2 id="provenance-heading">How to repeat this</h2>');
    expect(html).not.toContain('<nav');
  });
});

describe('pictures', () => {
  test('that cannot be read are an error', async () => {
    const report = (picture: string) =>
      sampleReport([{ kind: 'examples', name: 'e', heading: 'E', examples: [example(picture)] }]);
    await expectError(() => reportToHtml(report(join(folder, 'no.png'))), 'FILE_NOT_FOUND', /no\.png/);
    const path = join(folder, 'text.png');
    await writeFile(path, 'no picture');
    await expectError(() => reportToHtml(report(path)), 'IMAGE_INVALID', /text\.png is not a picture/);
  });

  test('of a lens carry a word on each patch that the lens has, or the reason why not', async () => {
    const picture = { data: new Uint8Array(4 * 4 * 3), width: 4, height: 4, hash: '' };
    const grid = [0, 2].map((x) => ({ x, y: 0, width: 2, height: 4 }));
    const lens = sampleLens({ layers: [0, 1], positions: 3 });
    const page = (pictures: (typeof lens)['pictures']) =>
      reportToHtml(sampleReport([{ kind: 'lens', name: 'l', heading: 'L', lens: { ...lens, pictures } }]));
    const drawn = await page([{ picture, first: 2, grid }]);
    expect(drawn.match(/data-position="\d+"/g)).toEqual(['data-position="2"']);
    expect(drawn).toContain(`>␣word${lens.lens.cells[1]?.[2]?.top[0]?.token}</text>`);
    expect(await page([{ picture, first: 0, grid: { reason: 'The rows are <pooled>.' } }])).toContain(
      'drawn over it: The rows are &lt;pooled&gt;.',
    );
  });
});
