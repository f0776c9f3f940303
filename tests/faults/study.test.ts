// Studies on the demo model, killed at random instants: in the end the lines, tables and figures of an undisturbed run.
import type { ChildProcess } from 'node:child_process';
import { appendFileSync, copyFileSync, cpSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { Random } from '../../src/util/random.js';
import {
  ending,
  faultFolder,
  KILLS,
  killRuns,
  launch,
  leftovers,
  MAIN,
  sorted,
  tablesOf,
  wholeLines,
} from './helpers.js';

const folder = faultFolder();
let runs = 0;
const newRun = () => join(folder, `run-${runs++}`);
const TASKS = ['--tasks', 'country-capital,food-color'];
const BOOK = join(folder, 'book.txt');

const STUDIES: [name: string, args: string[], output: string][] = [
  ['evolution', [...TASKS, '--prompts', '3'], '-o'],
  ['decode', [...TASKS, '--prompts', '2', '--specs', 'text,instruction'], '-o'],
  ['embed', [...TASKS, '--prompts', '3'], '-o'],
  ['tune', ['--text', BOOK, '--prompts', '6', '-o', 'lens.safetensors'], '--report'],
];

beforeAll(() => copyFileSync(join(PACKAGE_ROOT, 'README.md'), BOOK));

describe.each(STUDIES)('%s', (name, args, output) => {
  const start = (run: string): ChildProcess =>
    launch(process.execPath, ['--no-warnings', MAIN, name, '-m', 'demo', ...args, '--json', output, run], folder);

  /** Runs what is left of a run, and checks that it is whole. */
  async function finish(run: string) {
    const ended = await ending(start(run));
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const lines = sorted(wholeLines(run));
    const { status, units, lines: count } = JSON.parse(readFileSync(join(run, 'manifest.json'), 'utf8'));
    expect([status, count]).toEqual(['complete', units.length]);
    expect(existsSync(join(run, 'report.html'))).toBe(true);
    expect(leftovers(run)).toEqual([]);
    const { folder: _, report: __, ...said } = JSON.parse(ended.stdout);
    const figures = readdirSync(join(run, 'figures')).filter((file) => file.endsWith('.json'));
    return {
      said,
      lines,
      tables: tablesOf(run),
      figures: figures.map((file) => readFileSync(join(run, 'figures', file), 'utf8')),
      vectors: existsSync(join(run, 'vectors')) ? readdirSync(join(run, 'vectors')) : [],
    };
  }

  const wholeRun = newRun();
  let undisturbed: Awaited<ReturnType<typeof finish>>;
  /** How long it takes, milliseconds. */
  let duration = 0;
  beforeAll(async () => {
    const begun = Date.now();
    undisturbed = await finish(wholeRun);
    duration = Date.now() - begun;
    expect(undisturbed.lines.length).toBeGreaterThan(1);
  }, 300_000);

  test(`killed at ${KILLS} random instants, a run ends as an undisturbed one`, async () => {
    const random = new Random(1, 'kills', name);
    const whole = async (run: string) => expect(await finish(run)).toEqual(undisturbed);
    await killRuns({ newRun, start, duration }, random, { group: () => false, whole });
  }, 900_000);

  test('that lost a line, its vectors and its tables does what is missing again', async () => {
    const run = newRun();
    cpSync(wholeRun, run, { recursive: true });
    const results = join(run, 'results.jsonl');
    const [first = '', ...others] = readFileSync(results, 'utf8').split('\n');
    rmSync(results);
    appendFileSync(results, `${first}\n${others.slice(1).join('\n')}`);
    for (const lost of ['vectors', 'tables', 'report.html']) rmSync(join(run, lost), { recursive: true, force: true });
    expect(await finish(run)).toEqual(undisturbed);
  }, 300_000);
});
