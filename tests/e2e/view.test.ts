// From two runs of the demo to their pages in a real browser.
import type { ChildProcess } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import sharp from 'sharp';
import { accessibilityViolations, openBrowser } from './browser.js';
import { commandLine } from './cli-helpers.js';

const PHONE = { width: 360, height: 800 };

const cli = commandLine();
const inFolder = (name: string) => join(cli.folder, name);

const started: Awaited<ReturnType<typeof startView>>[] = [];
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
  const view = { child, line, ended };
  started.push(view);
  return view;
}

let url: string;
let browser: Browser;

beforeAll(async () => {
  for (const seed of ['1', '2']) {
    const few = ['--tasks', 'country-capital,food-color', '--seeds', seed, '--test', '6', '--threads', '1'];
    const less = ['validation=6', 'prompts=6'].flatMap((setting) => ['--set', setting]);
    await cli.json('demo', ...few, ...less, '-o', join('runs', `seed${seed}`));
  }
  mkdirSync(inFolder('runs/broken'));
  writeFileSync(inFolder('runs/broken/manifest.json'), '{"status":');
  mkdirSync(inFolder('runs/going'));
  const going = { status: 'running', title: 'Going \u202e<img src=x onerror=alert(1)>', started: 'yesterday' };
  writeFileSync(inFolder('runs/going/manifest.json'), JSON.stringify(going));
  url = JSON.parse((await startView('runs', '--json')).line).url;
  browser = await openBrowser();
});
afterAll(async () => {
  await browser?.close();
  for (const { child, ended } of started) {
    child.kill('SIGKILL');
    await ended;
  }
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

  const violations = () => accessibilityViolations(page);
  const overflows = () => page.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth');
  test('the list: states, problems, prompts', async () => {
    expect(await page.locator('tbody tr').count()).toBe(4);
    expect(await page.locator('tbody .complete').count()).toBe(2);
    expect(await page.locator('tr:has(.broken) .problem').textContent()).toMatch(/^RUN_INVALID: manifest\.json is not/);
    expect(await page.locator('tr:has(.running) th').textContent()).toContain('Going \\u{202e}<img');
    expect(await page.locator('tr:has-text("seed1") .headline').textContent()).not.toBe('');
  });

  test('opens a report, which works in its sandbox', async () => {
    await page.click('tbody tr:has-text("seed1") th a');
    await page.waitForURL(/report\.html$/);
    expect(await page.locator('h1').count()).toBe(1);
    expect(await page.locator('svg').count()).toBeGreaterThan(0);
    expect(await page.evaluate('self.origin')).toBe('null');
    await page.click('button:text-is("Dark")');
    expect(await page.getAttribute('html', 'data-scheme')).toBe('dark');
    const { channels } = await sharp(await page.screenshot()).stats();
    expect(Math.max(...channels.slice(0, 3).map(({ stdev }) => stdev))).toBeGreaterThan(10);
  });

  test('the files of a run, with the keyboard', async () => {
    await page.focus('tbody tr:has-text("seed1") summary');
    await page.keyboard.press('Enter');
    await page.click('tbody tr:has-text("seed1") a:has-text("figures/layer-sweep.svg")');
    await page.waitForURL(/layer-sweep\.svg$/);
    expect(await page.locator('svg').count()).toBeGreaterThan(0);
    await page.goBack();
    expect(await page.locator('tbody tr').count()).toBe(4);
  });

  test.each(['light', 'dark'] as const)('nothing that axe finds wrong: %s', async (colorScheme) => {
    await page.context().close();
    await openPage({ colorScheme });
    await page.click('tbody tr:has-text("seed1") summary');
    expect(await violations()).toEqual([]);
  });

  test('on a phone nothing is wider than the screen', async () => {
    await page.context().close();
    await openPage({ viewport: PHONE });
    await page.click('tbody tr:has-text("seed1") summary');
    expect(await overflows()).toBe(false);
    // Nor scrolls by itself.
    const list = await page.locator('.wide').evaluate(({ scrollWidth, clientWidth }) => scrollWidth - clientWidth);
    expect(list).toBe(0);
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

/** Whether something becomes true within five seconds. */
async function poll(condition: () => Promise<boolean>): Promise<boolean> {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
}
