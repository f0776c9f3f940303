// From two runs of the demo to their pages in a real browser.
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import sharp from 'sharp';
import { commandLine } from './cli-helpers.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PHONE = { width: 390, height: 844 };

const cli = commandLine();
const inFolder = (name: string) => join(cli.folder, name);
const left = (name: string) => `tbody tr:has-text("${name}") input[name=left]`;
const right = (name: string) => `tbody tr:has-text("${name}") input[name=right]`;

/** Starts `view` and waits for its first line. */
async function startView(
  ...args: string[]
): Promise<{ child: ChildProcess; line: string; ended: Promise<number | null> }> {
  const child = cli.start(['view', ...args]);
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  let [line, errors] = ['', ''];
  child.stderr?.on('data', (chunk) => {
    errors += chunk;
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (chunk) => {
      line += chunk;
      if (line.endsWith('\n')) resolve();
    });
    child.on('close', () => reject(new Error(`view ended: ${errors}`)));
  });
  return { child, line, ended };
}

let url: string;
let server: Awaited<ReturnType<typeof startView>>;
let browser: Browser;

beforeAll(async () => {
  for (const seed of ['1', '2']) {
    const few = ['--tasks', 'country-capital,food-color', '--seeds', seed, '--test', '6', '--threads', '1'];
    await cli.json('demo', ...few, '-o', join('runs', `seed${seed}`));
  }
  mkdirSync(inFolder('runs/broken'));
  writeFileSync(inFolder('runs/broken/manifest.json'), '{"status":');
  mkdirSync(inFolder('runs/going'));
  const going = { status: 'running', title: 'Going \u202e<img src=x onerror=alert(1)>', started: 'yesterday' };
  writeFileSync(inFolder('runs/going/manifest.json'), JSON.stringify(going));
  server = await startView('runs', '--json');
  url = JSON.parse(server.line).url;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
  });
});
afterAll(async () => {
  await browser?.close();
  server?.child.kill('SIGKILL');
});

describe('in the browser', () => {
  let page: Page;
  let problems: string[];

  const openPage = async (options: BrowserContextOptions = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    page = await context.newPage();
    problems = [];
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) problems.push(message.text());
    });
    page.on('pageerror', ({ message }) => problems.push(message));
    page.on('request', (request) => {
      if (!request.url().startsWith(url) && !request.url().startsWith('data:')) problems.push(request.url());
    });
    await page.goto(url);
  };
  beforeEach(() => openPage());
  afterEach(async () => {
    await page.context().close();
    expect(problems).toEqual([]);
  });

  /** What axe finds wrong. Reports in frames have their own tests, and are of another origin. */
  const violations = async (): Promise<string[]> => {
    await page.evaluate(AXE);
    const found = await page.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: { run(context: object, options: object): Promise<AxeResults> } };
      return (await axe.run({ exclude: ['iframe'] }, { iframes: false })).violations;
    });
    return found.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
  };
  const overflows = () => page.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth');
  const compareRuns = async () => {
    await page.check(left('seed1'));
    await page.check(right('seed2'));
    await page.click('text=Compare side by side');
    await page.waitForLoadState('load');
  };

  test('the list: states, problems, sorting with the keyboard', async () => {
    expect(await page.locator('tbody tr').count()).toBe(4);
    expect(await page.locator('tbody .complete').count()).toBe(2);
    expect(await page.locator('tr:has(.broken) .problem').textContent()).toMatch(/^RUN_INVALID: manifest\.json is not/);
    expect(await page.locator('tr:has(.running) th').textContent()).toContain('Going \\u{202e}<img');
    await page.focus('a:text-is("status")');
    await page.keyboard.press('Enter');
    await page.waitForURL(/sort=status/);
    expect(await page.locator('th[aria-sort=ascending]').textContent()).toBe('status');
    expect(await page.locator('tbody tr td:nth-child(6)').allTextContents()).toEqual([
      'broken',
      'complete',
      'complete',
      'running',
    ]);
  });

  test('opens a report, which works in its sandbox', async () => {
    await page.click('tbody tr:has-text("seed1") th a');
    await page.waitForURL(/report\.html$/);
    expect(await page.locator('h1').count()).toBe(1);
    expect(await page.locator('svg').count()).toBeGreaterThan(0);
    expect(await page.evaluate('self.origin')).toBe('null');
    const { channels } = await sharp(await page.screenshot()).stats();
    expect(Math.max(...channels.slice(0, 3).map(({ stdev }) => stdev))).toBeGreaterThan(10);
  });

  test('the files of a run', async () => {
    await page.click('tbody tr:has-text("seed1") small a');
    await page.click('a:has-text("figures/layer-sweep.svg")');
    await page.waitForURL(/layer-sweep\.svg$/);
    expect(await page.locator('svg').count()).toBeGreaterThan(0);
    await page.goBack();
    await page.click('a:has-text("All runs")');
    await page.waitForURL(url);
  });

  test('two runs: what differs, both tables, both reports scrolled together', async () => {
    await compareRuns();
    const keys = await page.locator('.differences tbody th').allTextContents();
    expect(keys).toEqual(expect.arrayContaining(['command', 'started', 'options.seeds']));
    expect(keys).not.toContain('model.hash');
    const merged = page.locator('.merged[aria-label="Table lenient"]');
    const patch = merged.locator('tr', { hasText: 'Text Patch' });
    const [a, b, difference] = await patch.locator('td').allTextContents();
    expect(Number(difference?.replace('−', '-'))).toBeCloseTo(Number(b) - Number(a), 3);
    const frames = page.frames().slice(1);
    expect(frames).toHaveLength(2);
    const tops = () => Promise.all(frames.map((frame) => frame.evaluate('scrollY') as Promise<number>));
    expect(await tops()).toEqual([0, 0]);
    const last = await page.locator('#block option').last().getAttribute('value');
    await page.selectOption('#block', last);
    await expect(poll(async () => Math.min(...(await tops())) > 100)).resolves.toBe(true);
    for (const frame of frames) {
      const box = await frame.evaluate(`document.getElementById('${last}').getBoundingClientRect().top`);
      expect(Math.abs(box as number)).toBeLessThan(900);
    }
    await page.selectOption('#block', '');
    await expect(poll(async () => Math.max(...(await tops())) === 0)).resolves.toBe(true);
  });

  test('a run without a report beside one with', async () => {
    await page.check(left('Going'));
    await page.check(right('seed1'));
    await page.click('text=Compare side by side');
    await page.waitForLoadState('load');
    expect(await page.locator('iframe').count()).toBe(1);
    expect(await page.locator('section[aria-label=left]').textContent()).toContain('No report.');
  });

  test.each(['light', 'dark'] as const)('nothing that axe finds wrong: %s', async (colorScheme) => {
    await page.context().close();
    await openPage({ colorScheme });
    const pages = { list: await violations(), compare: [] as string[], files: [] as string[] };
    await compareRuns();
    pages.compare = await violations();
    await page.goto(url);
    await page.click('tbody tr:has-text("seed1") small a');
    await page.waitForLoadState('load');
    pages.files = await violations();
    expect(pages).toEqual({ list: [], compare: [], files: [] });
  });

  test('on a phone nothing is wider than the screen, and two reports stand one above the other', async () => {
    await page.context().close();
    await openPage({ viewport: PHONE });
    expect(await overflows()).toBe(false);
    await compareRuns();
    expect(await overflows()).toBe(false);
    const [one, two] = await Promise.all([0, 1].map((i) => page.locator('iframe').nth(i).boundingBox()));
    expect(two?.y).toBeGreaterThanOrEqual((one?.y ?? 0) + (one?.height ?? 0));
    expect(two?.x).toBe(one?.x);
    expect(await violations()).toEqual([]);
  });
});

describe('the command', () => {
  test('prints the address and how to end, opens the browser, and ends by Ctrl-C', async () => {
    const bin = inFolder('bin');
    mkdirSync(bin);
    for (const name of ['xdg-open', 'open']) {
      writeFileSync(join(bin, name), '#!/bin/sh\nprintf %s "$1" > opened.tmp && mv opened.tmp opened\n');
      chmodSync(join(bin, name), 0o755);
    }
    const path = process.env.PATH;
    process.env.PATH = `${bin}:${path}`;
    const { child, line, ended } = await startView(join('runs', 'seed1'), '--open');
    process.env.PATH = path;
    expect(line).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/ shows 1 run\. Ctrl-C ends it\.\n$/);
    const [address = ''] = line.split(' ');
    await expect(poll(async () => existsSync(inFolder('opened')))).resolves.toBe(true);
    expect(readFileSync(inFolder('opened'), 'utf8')).toBe(address);
    expect((await fetch(address)).status).toBe(200);
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    await expect(fetch(address)).rejects.toThrow();
  });

  test('keeps its addresses over a restart on the same port', async () => {
    const first = await startView('runs', '--json');
    const { url: address, runs } = JSON.parse(first.line);
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe(143);
    const second = await startView('runs', '--json', '--port', new URL(address).port);
    expect(JSON.parse(second.line)).toEqual({ url: address, runs });
    expect(runs.map(({ state }: { state: string }) => state).sort()).toEqual([
      'broken',
      'complete',
      'complete',
      'running',
    ]);
    const taken = await cli.error('view', 'runs', '--port', new URL(address).port);
    expect(taken).toMatchObject({ code: 'PORT_UNAVAILABLE', exit: 1 });
    second.child.kill('SIGTERM');
    await second.ended;
  });

  test.each<[string, string[], string, number, RegExp]>([
    ['a folder that is not there', ['nowhere'], 'FILE_NOT_FOUND', 1, /There is no folder nowhere/],
    ['a file', ['runs/broken/manifest.json'], 'RUN_INVALID', 1, /is a file\. Name the folder/],
    ['a folder without runs', ['bare'], 'RUN_INVALID', 1, /no run in bare.*--output/],
    ['a port that cannot be', ['runs', '--port', '70000'], 'INVALID_ARGUMENT', 2, /at most 65535/],
  ])('explains %s', async (_, args, code, exit, message) => {
    mkdirSync(inFolder('bare'), { recursive: true });
    expect(await cli.error('view', ...args)).toEqual({ code, exit, message: expect.stringMatching(message) });
  });
});

interface AxeResults {
  violations: { id: string; nodes: { html: string }[] }[];
}

/** Whether something becomes true within five seconds. */
async function poll(condition: () => Promise<boolean>): Promise<boolean> {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}
