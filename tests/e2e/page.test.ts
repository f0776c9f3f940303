// A report in a real browser, opened from disk: what a reader can do with it, by pointer and by keyboard.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { reportToHtml } from '../../src/report/page/page.js';
import type { Block, LensView, PatchMapView } from '../../src/report/report.js';
import { tableToCsv, tableToLatex, tableToMarkdown } from '../../src/report/tables.js';
import { temporaryFolder } from '../unit/helpers.js';
import { sampleLens, sampleReport } from '../unit/lens-samples.js';
import { accessibilityViolations, openBrowser } from './browser.js';

const folder = await temporaryFolder();
const LAYERS = [0, 1, 2, 3, 4, 5];
const N_POSITIONS = 60;
const lens: LensView = {
  ...sampleLens({ layers: LAYERS, positions: N_POSITIONS, tracked: 1 }),
  pictures: [
    {
      picture: { data: new Uint8Array(32 * 32 * 3).fill(90), width: 32, height: 32, hash: '' },
      first: 4,
      grid: Array.from({ length: 4 }, (_, i) => ({
        x: 16 * (i % 2),
        y: 16 * Math.floor(i / 2),
        width: 16,
        height: 16,
      })),
    },
    {
      picture: { data: new Uint8Array(4 * 4 * 3), width: 4, height: 4, hash: '' },
      first: 20,
      grid: { reason: 'This encoder pools its rows.' },
    },
  ],
};
const cellOf = (layer: number, p: number) => lens.lens.cells[layer]?.[p] as LensView['lens']['cells'][number][number];
const bestOf = (layer: number, p: number) =>
  cellOf(layer, p).top[0] as { text: string; token: number; probability: number };
const shown = (text: string) => text.replace(/^ /, '␣');

const cell = (value: number) => ({ value, low: value - 0.1, high: value + 0.1, n: 10, items: 5 });
const table = {
  title: 'Accuracy',
  corner: 'Condition',
  columns: ['first', 'second'],
  rows: [
    { label: 'b', cells: [cell(0.2), cell(0.1)] },
    { label: 'c', cells: [undefined, cell(0.3)] },
    { label: 'a', cells: [cell(0.9), cell(0.2)] },
  ],
  notes: ['A note.'],
};
const blocks: Block[] = [
  { kind: 'lens', name: 'lens', heading: 'The lens', lens },
  { kind: 'table', name: 'accuracy', heading: 'The table', caption: 'What it says.', table },
  {
    kind: 'curves',
    name: 'curves',
    heading: 'The curves',
    figure: {
      title: 'Curves',
      xLabel: 'layer',
      yLabel: 'share',
      panels: [{ title: 'one', series: [{ label: 'line', points: LAYERS.map((x) => ({ x, y: x / 10 })) }] }],
    },
  },
  {
    kind: 'pies',
    name: 'pies',
    heading: 'The pies',
    pies: {
      title: 'Pies',
      pies: [
        {
          title: 'one',
          slices: [
            { label: 'a\u00a0piece', count: 3 },
            { label: 'b', count: 1 },
          ],
        },
      ],
    },
  },
  {
    kind: 'scatter',
    name: 'scatter',
    heading: 'The points',
    scatter: {
      title: 'Points',
      panels: [
        {
          title: 'one',
          xLabel: 'x',
          yLabel: 'y',
          points: [0, 1, 2].map((i) => ({ x: i, y: i, colour: 'c', shape: i ? 's' : 't', label: `point ${i}` })),
        },
      ],
    },
  },
  {
    kind: 'examples',
    name: 'examples',
    heading: 'Examples',
    examples: [{ task: 't', query: 'q', expected: 'e', answers: [{ condition: 'Patch', answer: 'e', correct: true }] }],
  },
];

let browser: Browser;
let file: string;
beforeAll(async () => {
  file = await write('report.html', await reportToHtml(sampleReport(blocks)));
  browser = await openBrowser();
});
afterAll(() => browser?.close());

async function write(name: string, html: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, html);
  return pathToFileURL(path).href;
}

const pages: Page[] = [];
afterEach(async () => {
  for (const page of pages.splice(0)) await page.context().close();
});

/** Opens a report and notes everything that went wrong in it or left it. */
async function open(options: BrowserContextOptions = {}, url = file, before = '') {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  await page.addInitScript(before);
  pages.push(page);
  const problems: string[] = [];
  page.on('console', (message) => problems.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => problems.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (request.url() !== url && !request.url().startsWith('data:')) problems.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  const ready = before === '' ? '.grid .active' : '.lens [role=status]';
  if (options.javaScriptEnabled !== false) await page.locator(ready).first().waitFor();
  return { page, problems };
}

const gridCell = (page: Page, l: number, p: number) => page.locator(`.grid [data-l="${l}"][data-p="${p}"]`);
const scores = (page: Page) => page.locator('.cell-part .scores').first().locator('.score');

describe('the lens', () => {
  test('opens at the end of the prompt, with the highest layer on top and nothing wrong', async () => {
    const { page, problems } = await open();
    const rows = await page.locator('.grid .row-head').allTextContents();
    expect(rows).toEqual(['5', '4', '3', '2', '1', '0']);
    await expect(page.locator('.panel .place').first().textContent()).resolves.toBe('Layer 5 · position 59 ␣in59');
    expect(await page.locator('.grid').getAttribute('aria-colcount')).toBe(String(N_POSITIONS + 1));
    expect(await page.locator('.grid [role=gridcell]').count()).toBeLessThan(LAYERS.length * N_POSITIONS);
    const last = gridCell(page, 5, 59);
    expect(await last.textContent()).toBe(shown(bestOf(5, 59).text));
    expect(problems).toEqual([]);
  });

  test('shows the best tokens of the cell under the pointer, and those of the chosen one afterwards', async () => {
    const { page } = await open();
    await gridCell(page, 2, 55).hover();
    const { top, entropy, kl } = cellOf(2, 55);
    expect(await scores(page).locator('.token').allTextContents()).toEqual(top.map(({ text }) => shown(text)));
    const percents = await scores(page).locator('.percent').allTextContents();
    percents.forEach((text, r) => {
      expect(Number.parseFloat(text) / 100).toBeCloseTo(top[r]?.probability as number, 2.5);
    });
    const facts = await page.locator('.facts dd').allTextContents();
    expect(Number.parseFloat(facts[0] ?? '')).toBeCloseTo(entropy, 1.9);
    expect(Number.parseFloat(facts[1] ?? '')).toBeCloseTo(kl, 1.9);
    expect(facts[2]).toBe(`layer ${lens.lens.settled[55]}`);
    await page.mouse.move(0, 0);
    expect(await page.locator('.panel .place').first().textContent()).toContain('Layer 5 · position 59');
  });

  test('is walked through with the keyboard, out of sight too, and tells a screen reader where it is', async () => {
    const { page } = await open();
    const grid = page.locator('.grid');
    await grid.focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowLeft');
    const active = async () => {
      const id = await grid.getAttribute('aria-activedescendant');
      return page.locator(`[id="${id}"]`);
    };
    expect(await (await active()).getAttribute('aria-label')).toMatch(
      new RegExp(`^Layer 4, position 58, input ␣in58: ${shown(bestOf(4, 58).text)}, [\\d.]+ %$`),
    );
    await page.locator('.panel [role=status]', { hasText: /^Layer 4: ␣word/ }).waitFor({ state: 'attached' });
    await page.keyboard.press('Home');
    expect(await (await active()).textContent()).toBe(shown(bestOf(4, 0).text));
    expect(await (await active()).isVisible()).toBe(true);
    await page.keyboard.press('Control+End');
    expect(await (await active()).getAttribute('aria-label')).toMatch(/^Layer 0, position 59/);
    const box = await (await active()).boundingBox();
    const frame = await grid.boundingBox();
    expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual((frame?.x ?? 0) + (frame?.width ?? 0) + 1);
  });

  test('pins a token by click, Enter or from the list, with probability and rank where they are known', async () => {
    const { page } = await open();
    await gridCell(page, 3, 57).click();
    const { token, text, probability } = bestOf(3, 57);
    const rows = page.locator('.ranks tbody tr');
    expect(await page.locator('.pin-part .token').textContent()).toBe(shown(text));
    const expected = [5, 4, 3, 2, 1, 0].map((layer) => cellOf(layer, 57).top.findIndex((t) => t.token === token));
    const ranks = await rows.locator('td:last-child').allTextContents();
    expect(ranks).toEqual(expected.map((rank) => (rank < 0 ? 'not in the top 3' : String(rank + 1))));
    const own = (await rows.nth(2).locator('td').first().textContent()) ?? '';
    expect(Number.parseFloat(own) / 100).toBeCloseTo(probability, 2.5);
    expect(await page.locator('.chart circle').count()).toBe(expected.filter((rank) => rank >= 0).length);
    await page.locator('.grid').press('Escape');
    expect(await rows.count()).toBe(0);
    await page.locator('.grid').press('Enter');
    expect(await rows.count()).toBe(LAYERS.length);
    // a followed token is known everywhere
    await page.locator('.cell-part .scores').nth(1).locator('.score').click();
    expect(await rows.locator('td:last-child').allTextContents()).not.toContain('not in the top 3');
    expect(await page.locator('.chart circle').count()).toBe(LAYERS.length);
    const among = LAYERS.filter((layer) => cellOf(layer, 57).top.some((score) => score.token === 0)).length;
    expect(await page.locator('.panel [role=status]').textContent()).toContain(
      `the best tokens in ${among} of 6 layers`,
    );
  });

  test('switches what the colours mean', async () => {
    const { page } = await open();
    const stepOf = async (l: number, p: number) =>
      Number(/\bq(\d+)\b/.exec((await gridCell(page, l, p).getAttribute('class')) ?? '')?.[1]);
    const most = (of: (cell: ReturnType<typeof cellOf>) => number) => Math.max(...lens.lens.cells.flat().map(of));
    const step = (share: number) => Math.min(31, Math.floor(share * 32));
    expect(await stepOf(1, 58)).toBe(step(bestOf(1, 58).probability));
    await page.getByText('Entropy', { exact: true }).click();
    expect(await stepOf(1, 58)).toBe(step(cellOf(1, 58).entropy / most((c) => c.entropy)));
    await page.keyboard.press('ArrowRight'); // a group of radio buttons
    expect(await stepOf(1, 58)).toBe(step(cellOf(1, 58).kl / most((c) => c.kl)));
    expect(await page.locator('.legend').textContent()).toContain(`${most((c) => c.kl).toFixed(2)} nats`);
  });

  test('marks where a position settles', async () => {
    const { page } = await open();
    for (const p of [56, 57, 58]) {
      const settled = await page.locator(`.grid .settled[data-p="${p}"]`).getAttribute('data-l');
      expect(Number(settled)).toBe(lens.lens.settled[p]);
    }
  });

  test('draws the words of any layer over the picture, which the pointer and the keyboard can ask', async () => {
    const { page } = await open();
    const words = page.locator('.patches .word');
    expect(await words.allTextContents()).toEqual([4, 5, 6, 7].map((p) => shown(bestOf(5, p).text)));
    const slider = page.getByRole('slider', { name: 'Layer' });
    await slider.fill('2');
    expect(await words.allTextContents()).toEqual([4, 5, 6, 7].map((p) => shown(bestOf(2, p).text)));
    expect(await slider.getAttribute('aria-valuetext')).toBe('layer 2');
    await page.locator('.patch').nth(1).hover();
    expect(await page.locator('.panel .place').first().textContent()).toContain('Layer 2 · position 5');
    await slider.press('Tab');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowDown');
    expect(await page.locator('.panel .place').first().textContent()).toContain('Layer 2 · position 7');
    await page.keyboard.press('Enter');
    expect(await page.locator('.pin-part .token').textContent()).toBe(shown(bestOf(2, 7).text));
    expect(await page.getByText('This encoder pools its rows.').isVisible()).toBe(true);
  });
});

describe('tables and figures', () => {
  test('tables sort by any column, what is missing last', async () => {
    const { page } = await open();
    const labels = () => page.locator('#accuracy tbody th').allTextContents();
    const first = page.getByRole('button', { name: 'first' });
    await first.click();
    expect(await labels()).toEqual(['a', 'b', 'c']);
    expect(await page.locator('#accuracy th[aria-sort]').getAttribute('aria-sort')).toBe('descending');
    await first.press('Enter');
    expect(await labels()).toEqual(['b', 'a', 'c']);
    await first.click();
    expect(await labels()).toEqual(['b', 'c', 'a']);
    expect(await page.locator('#accuracy th[aria-sort]').count()).toBe(0);
    await page.getByRole('button', { name: 'Condition' }).click();
    expect(await labels()).toEqual(['a', 'b', 'c']);
  });

  test('tables are copied as Markdown, CSV and LaTeX; without a clipboard they stand there to be copied', async () => {
    const { page } = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
    for (const [format, text] of [
      ['Markdown', tableToMarkdown(table)],
      ['CSV', tableToCsv(table)],
      ['LaTeX', tableToLatex(table)],
    ] as const) {
      await page.getByRole('button', { name: format }).click();
      await page.getByText(`${format} copied`).waitFor();
      expect(await page.evaluate('navigator.clipboard.readText()')).toBe(text);
    }
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })");
    await page.getByRole('button', { name: 'Markdown' }).click();
    expect(await page.getByLabel('The table as Markdown').inputValue()).toBe(tableToMarkdown(table));
  });

  test('marks of figures say what they are on hover and with the keyboard', async () => {
    const { page } = await open();
    const tip = page.locator('#page-tip');
    for (const name of ['curves', 'pies', 'scatter']) {
      const figure = page.locator(`#${name} figure:not(.phone)`);
      const marks = figure.locator('[data-tip]');
      const second = await marks.nth(1).getAttribute('data-tip');
      await marks.nth(1).hover();
      expect(await tip.textContent()).toBe(second);
      expect(await tip.isVisible()).toBe(true);
      await page.mouse.move(0, 0);
      await tip.waitFor({ state: 'hidden' });
      expect(await figure.locator('[tabindex="0"]').count()).toBe(1);
      await figure.locator('[tabindex="0"]').focus();
      await page.keyboard.press('ArrowRight');
      expect(await tip.textContent()).toBe(second);
      await page.keyboard.press('Escape');
      expect(await tip.isVisible()).toBe(false);
    }
  });

  test('figures are saved as SVG', async () => {
    const { page } = await open();
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.locator('#pies').getByRole('button', { name: 'Save SVG' }).click(),
    ]);
    expect(download.suggestedFilename()).toBe('pies.svg');
    // A program that reads XML reads it, hard spaces and all.
    const saved = await readFile(await download.path(), 'utf8');
    expect(saved).toContain('a\u00a0piece');
    expect(saved).not.toContain('&nbsp;');
  });
});

describe('every reader', () => {
  test.each(['light', 'dark'] as const)('gets a page without a violation of accessibility, %s', async (colorScheme) => {
    const { page } = await open({ colorScheme });
    await gridCell(page, 3, 57).click();
    expect(await accessibilityViolations(page)).toEqual([]);
    await page.getByText('Entropy', { exact: true }).click();
    await page.getByRole('button', { name: 'first' }).click();
    expect(await accessibilityViolations(page)).toEqual([]);
  });

  test('has dark and light, by the system and by a switch', async () => {
    const { page } = await open({ colorScheme: 'dark' });
    const ground = () => page.evaluate('getComputedStyle(document.documentElement).backgroundColor');
    const colour = () =>
      gridCell(page, 0, 58).evaluate((e) => e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor);
    const dark = [await ground(), await colour()];
    await page.getByRole('button', { name: 'Light' }).click();
    const light = [await ground(), await colour()];
    expect(await page.getByRole('button', { name: 'Dark' }).count()).toBe(1);
    expect(light[0]).toBe('rgb(255, 255, 255)');
    expect(dark[0]).not.toBe(light[0]);
    expect(dark[1]).not.toBe(light[1]);
  });

  test('reads it on a phone without scrolling the page sideways', async () => {
    const { page, problems } = await open({ viewport: { width: 375, height: 700 }, hasTouch: true, isMobile: true });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(375);
    for (const name of ['curves', 'pies', 'scatter']) {
      const [wide, phone] = [':not(.phone)', '.phone'].map((kind) => page.locator(`#${name} figure${kind} svg`));
      expect([await wide?.isVisible(), await phone?.isVisible()]).toEqual([false, true]);
      const { x = 0, width = 0 } = (await phone?.boundingBox()) ?? {};
      expect({ name, fits: width > 300 && x + width <= 375 }).toEqual({ name, fits: true });
    }
    await gridCell(page, 5, 58).tap();
    expect(await page.locator('.panel .place').first().textContent()).toContain('Layer 5 · position 58');
    expect(await accessibilityViolations(page)).toEqual([]);
    expect(problems).toEqual([]);
  });

  test('prints tables in place of the grid, on a light ground', async () => {
    const { page } = await open({ colorScheme: 'dark' });
    await page.emulateMedia({ media: 'print' });
    expect(await page.locator('.grid').isVisible()).toBe(false);
    expect(await page.locator('.lens-static table').last().isVisible()).toBe(true);
    expect(await page.locator('.lens-static table').last().textContent()).toContain(shown(bestOf(5, 59).text));
    expect(await page.evaluate('getComputedStyle(document.documentElement).color')).toBe('rgb(28, 31, 36)');
    const pdf = await page.pdf({ format: 'A4' });
    expect(pdf.subarray(0, 5).toString()).toBe('%PDF-');
    expect(pdf.length).toBeGreaterThan(20_000);
  });

  test('is told when the browser cannot unpack a lens, and has its tables', async () => {
    const { page, problems } = await open({}, file, 'delete globalThis.DecompressionStream');
    expect(await page.locator('#lens [role=status]').textContent()).toMatch(/^This browser cannot unpack/);
    expect(await page.locator('.lens-static table').last().textContent()).toContain(shown(bestOf(5, 59).text));
    expect(await page.locator('.lens-static table').last().isVisible()).toBe(true);
    await page.getByRole('button', { name: 'first' }).click();
    expect(await accessibilityViolations(page)).toEqual([]);
    expect(problems).toEqual([]);
  });

  test('has everything but the interaction without a script', async () => {
    const { page } = await open({ javaScriptEnabled: false });
    expect(await page.locator('.lens-static table').first().isVisible()).toBe(true);
    expect(await page.locator('.patches .word').allTextContents()).toEqual(
      [4, 5, 6, 7].map((p) => shown(bestOf(5, p).text)),
    );
    expect(await page.getByRole('cell', { name: '0.90 [0.80, 1.00]' }).isVisible()).toBe(true);
    expect(await page.locator('#scatter figure:not(.phone) svg').isVisible()).toBe(true);
    expect(await page.locator('button').count()).toBe(0);
    expect(await page.getByText('xpatch lens').isVisible()).toBe(true);
  });
});

describe('what could break a page', () => {
  test('texts of a model and of files stay texts', async () => {
    const texts = [
      '</script><img src=x onerror="document.title=1">',
      '\u202eright to left',
      ' \u0000\u0007\u001b[31m',
      '\ud83d',
      '\ufffd\ufffd',
      '\u0301\u0302',
      'שלום',
      '👩‍👩‍👧',
      '{{x}}`%s`',
      'long'.repeat(200),
    ];
    const hostile: LensView = {
      ...sampleLens({
        layers: [0, 1, 2],
        positions: texts.length,
        vocabulary: texts.length,
        text: (token) => texts[token] as string,
      }),
      inputs: texts.map((text) => ({ text, kind: 'token' })),
      notes: texts,
    };
    const rows = texts.map((text) => [text, text.length]);
    const html = await reportToHtml({
      title: texts.join(' '),
      introduction: texts,
      provenance: Object.fromEntries(texts.map((text) => [text, text])),
      blocks: [
        { kind: 'lens', name: 'lens', heading: texts.join(' '), lens: hostile },
        {
          kind: 'table',
          name: 'texts',
          heading: 'Texts',
          table: { title: 'Texts', columns: [{ name: 'text' }, { name: 'length', digits: 0 }], rows, notes: texts },
        },
      ],
    });
    const { page, problems } = await open({ viewport: { width: 375, height: 700 } }, await write('hostile.html', html));
    await page.locator('.grid').focus();
    for (let i = 0; i < texts.length; i++) {
      await page.keyboard.press('Enter');
      await page.keyboard.press('ArrowLeft');
    }
    await page.getByRole('button', { name: 'length' }).click();
    expect(problems).toEqual([]);
    expect(await page.title()).toContain('</script><img src=x');
    expect(await page.locator('img').count()).toBe(0);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(375);
    const all = (await page.locator('main').textContent()) ?? '';
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not appear
    expect(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u202a-\u202e\u2066-\u2069]/.exec(all)).toBeNull();
    expect(all).toContain('\\u{202e}right to left');
    expect(all).toContain('\\u{d83d}');
    expect(await accessibilityViolations(page)).toEqual([]);
  });

  test('a prompt of 10,000 tokens and 32 layers opens, scrolls to its end and stays under 5 MB', async () => {
    const long = sampleLens({
      layers: Array.from({ length: 32 }, (_, l) => l),
      positions: 10_000,
      topK: 5,
      vocabulary: 30_000,
    });
    const html = await reportToHtml(sampleReport([{ kind: 'lens', name: 'lens', heading: 'Lens', lens: long }]));
    expect(Buffer.byteLength(html)).toBeLessThan(5e6);
    expect(/To stay under 5 MB [^<]*/.exec(html)?.[0]).toMatch(/this page holds the best \d of 5 tokens of each cell;/);
    const url = await write('long.html', html);
    const started = Date.now();
    const { page, problems } = await open({}, url);
    expect(Date.now() - started).toBeLessThan(30_000); // a second on an idle machine
    const grid = page.locator('.grid');
    const last = long.lens.cells[31]?.[9999]?.top[0]?.text as string;
    expect(await gridCell(page, 31, 9999).textContent()).toBe(shown(last));
    await grid.focus();
    await page.keyboard.press('Home');
    await gridCell(page, 31, 0).waitFor();
    await grid.evaluate((element) => element.scrollTo({ left: element.scrollWidth }));
    await gridCell(page, 31, 9999).waitFor();
    expect(await page.locator('.grid .column-head').last().isVisible()).toBe(true);
    expect(await page.locator('.grid [role=gridcell]').count()).toBeLessThan(32 * 40);
    expect(problems).toEqual([]);
  }, 300_000);
});

describe('a patching map', () => {
  const map = {
    metric: 'logit of " Lima" - " Havana"',
    clean: 3,
    corrupt: -1,
    unit: 'position',
    layers: [0, 2, 5],
    columns: Array.from({ length: 30 }, (_, p) => ({
      number: p,
      inputs: [p === 7 ? null : `in${p}`, p === 3 ? 'other' : p === 7 ? null : `in${p}`],
    })),
    values: [0, 1, 2].map((l) => Array.from({ length: 30 }, (_, p) => (l === 2 && p === 20 ? 3 : -1 + (l * p) / 100))),
    top: {
      clean: [[' Lima', 0.75]],
      corrupt: [[' Havana', 0.5]],
      patched: [0, 1, 2].map((l) => Array.from({ length: 30 }, (_, p) => [[` best${l}-${p}`, 0.25]])),
    },
  } as const satisfies PatchMapView;
  const numbers = {
    title: 'The map',
    columns: [{ name: 'layer', digits: 0 }, ...map.columns.map(({ number }) => ({ name: String(number), digits: 3 }))],
    rows: map.layers.map((layer, l) => [layer, ...(map.values[l] ?? [])]),
    notes: [],
  };
  let url: string;
  beforeAll(async () => {
    const block = { kind: 'table', name: 'map', heading: 'One patch at a time', table: numbers, map } as const;
    url = await write('map.html', await reportToHtml(sampleReport([block])));
  });
  const panel = (page: Page) => page.locator('.panel .cell-part');

  test('opens where a patch changes most; a cell is chosen by click and with the keyboard, and says what it is', async () => {
    const { page, problems } = await open({}, url);
    expect(await page.locator('.grid .active').textContent()).toBe('3.000');
    expect(await panel(page).textContent()).toMatch(
      /Layer 5 · position 20 in20patched3\.0000clean3\.0000corrupt-1\.0000.*100\.0 %/,
    );
    await gridCell(page, 1, 18).click();
    expect(await panel(page).textContent()).toMatch(
      /Layer 2 · position 18 in18patched-0\.8200.*4\.5 %.*␣best1-18.*25\.0 %.*Lima.*Havana/,
    );
    await page.keyboard.press('ArrowUp');
    await page.keyboard.press('ArrowLeft');
    expect(await panel(page).textContent()).toMatch(/Layer 5 · position 17 /);
    const active = await page.locator('.grid').getAttribute('aria-activedescendant');
    expect(await page.locator(`#${active}`).getAttribute('aria-label')).toBe(
      'Layer 5, position 17, in17: patched -0.660, clean 3.000, corrupt -1.000',
    );
    await page.locator('.panel [role=status]:not(:empty)').waitFor();
    expect(await page.locator('.panel [role=status]').textContent()).toMatch(
      /^Layer 5, position 17, .*␣best2-17 25\.0 %/,
    );
    await page.keyboard.press('Home');
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
    expect(await panel(page).textContent()).toMatch(/position 3 in3in the clean prompt other/);
    for (let i = 0; i < 4; i++) await page.keyboard.press('ArrowRight');
    expect(await panel(page).textContent()).toMatch(/position 7 ▦patched/);
    await gridCell(page, 0, 5).hover();
    expect(await panel(page).textContent()).toMatch(/Layer 0 · position 5/);
    await page.mouse.move(5, 5);
    expect(await panel(page).textContent()).toMatch(/Layer 5 · position 7/);
    expect(await accessibilityViolations(page)).toEqual([]);
    expect(problems).toEqual([]);
  });

  test('fits a phone, prints its table, and has that without a script too', async () => {
    const { page, problems } = await open(
      { viewport: { width: 360, height: 700 }, hasTouch: true, isMobile: true },
      url,
    );
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    await gridCell(page, 0, 20).tap();
    expect(await panel(page).textContent()).toMatch(/Layer 0 · position 20/);
    expect(await accessibilityViolations(page)).toEqual([]);
    expect(await page.locator('#map table').isVisible()).toBe(false);
    await page.emulateMedia({ media: 'print' });
    expect([await page.locator('#map table').isVisible(), await page.locator('.grid').isVisible()]).toEqual([
      true,
      false,
    ]);
    expect(problems).toEqual([]);
    const bare = await open({ javaScriptEnabled: false }, url);
    expect(await bare.page.locator('#map table').isVisible()).toBe(true);
  });
});
