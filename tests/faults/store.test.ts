// The store of a run under SIGKILL, full disks and rivals, with a writer that does nothing else.
import { type ChildProcess, spawn } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { Random } from '../../src/util/random.js';
import { sampleLines, sampleManifest } from '../unit/run-samples.js';
import {
  ending,
  faultFolder,
  KILLS,
  kill,
  launch,
  leftovers,
  SMALL_DISKS,
  sorted,
  WRITER,
  wholeLines,
  withoutPermission,
} from './helpers.js';

const folder = faultFolder();
const EXPERIMENT = { ...sampleManifest().options, seeds: Array.from({ length: 40 }, (_, i) => i) };
/** Long ones, so that a write can be torn. */
const LINES = sampleLines(EXPERIMENT).map((line) => ({ ...line, prompt: { text: 'Q:'.repeat(300), tokens: [1, 2] } }));
const manifest = sampleManifest({ options: EXPERIMENT });
let runs = 0;
const newRun = () => join(folder, `run-${runs++}`);

/** A command that writes all lines, so many at a time. */
function writer(run: string, batch: number): string[] {
  const job = join(folder, `job-${batch}.json`);
  writeFileSync(job, JSON.stringify({ manifest, lines: LINES, batch }));
  return [process.execPath, WRITER, job, run];
}
const start = ([command, ...args]: string[]): ChildProcess => launch(command as string, args);
const opened = (child: ChildProcess) => new Promise<void>((resolve) => child.stdout?.once('data', () => resolve()));

async function finish(run: string, batch = 100) {
  const { code, stdout } = await ending(start(writer(run, batch)));
  expect(stdout).toMatch(/complete \d+\n$/);
  expect(code).toBe(0);
  expect(sorted(wholeLines(run))).toEqual(sorted(LINES));
  expect(JSON.parse(readFileSync(join(run, 'manifest.json'), 'utf8'))).toMatchObject({
    status: 'complete',
    lines: LINES.length,
  });
  expect(leftovers(run)).toEqual([]);
}

/** How long the writer takes undisturbed, milliseconds. */
let duration = 0;
beforeAll(async () => {
  const run = newRun();
  const begun = Date.now();
  await finish(run);
  duration = Date.now() - begun;
});

test('killed at random instants, a run goes on and ends with every line once', async () => {
  const random = new Random(1, 'kills');
  let [run, before] = [newRun(), 0];
  for (let i = 0; i < KILLS * 2; i++) {
    const batch = 1 + random.integer(400);
    const child = start(writer(run, batch));
    const ended = ending(child);
    await delay(random.uniform() * duration);
    kill(child, false);
    const { signal } = await ended;
    const lines = wholeLines(run).length;
    expect(lines).toBeGreaterThanOrEqual(before);
    before = lines;
    if (signal === 'SIGKILL') continue;
    await finish(run);
    [run, before] = [newRun(), 0];
  }
  await finish(run);
});

describe.each(SMALL_DISKS)('$name', (disk) => {
  test.each([70, 300])(
    'ends the run after %i kB with a way out, and what was written stays whole',
    async (kilobytes) => {
      const run = newRun();
      mkdirSync(run);
      const { code, stdout } = await disk.run(kilobytes, run, writer(run, 40));
      expect(stdout).toMatch(/^open\nFILE_WRITE: Could not write .*results\.jsonl\. /);
      expect(stdout).toMatch(disk.problem);
      expect(code).toBe(1);
      // Not even a torn line: what got through was cut off again.
      const bytes = readFileSync(join(run, 'results.jsonl'));
      expect(bytes.at(-1)).toBe(10);
      expect(wholeLines(run).length % 40).toBe(0);
      expect(wholeLines(run).length).toBeGreaterThan(0);
      expect(leftovers(run)).toEqual([]);
      await finish(run);
    },
  );
});

describe('a run under which, while it is written,', () => {
  const results = (run: string) => join(run, 'results.jsonl');
  test.each<[string, (run: string) => void]>([
    ['the lines are deleted', (run) => rmSync(results(run))],
    [
      'the lines are cut off behind one',
      (run) => truncateSync(results(run), readFileSync(results(run)).indexOf(10) + 1),
    ],
    ['the lines are cut through', (run) => truncateSync(results(run), 100)],
    ['a line of somebody else is put behind', (run) => appendFileSync(results(run), '{"half":')],
    [
      'the lines are replaced by a copy',
      (run) => {
        copyFileSync(results(run), `${run}.copy`);
        renameSync(`${run}.copy`, results(run));
      },
    ],
    [
      'everything is deleted',
      (run) => {
        for (const name of readdirSync(run)) rmSync(join(run, name), { recursive: true });
      },
    ],
    ['the folder is deleted', (run) => rmSync(run, { recursive: true })],
    ['the folder is moved', (run) => renameSync(run, `${run}.away`)],
  ])('%s ends with an error, and the same command mends it', async (_, damage) => {
    const run = newRun();
    const child = start(writer(run, 1));
    const ended = ending(child);
    while (!existsSync(results(run)) || readFileSync(results(run)).length < 2000) await delay(1);
    process.kill(child.pid as number, 'SIGSTOP'); // it is in the middle however fast the disk is
    damage(run);
    process.kill(child.pid as number, 'SIGCONT');
    const { code, stdout } = await ended;
    expect(stdout).toMatch(/^open\n(RUN_INVALID|FILE_WRITE): .*again/);
    expect(stdout).toContain(run);
    expect(code).toBe(1);
    await finish(run);
  });
});

test('a folder that may not be written is refused with a way out, and left as it is', async () => {
  const fresh = newRun();
  mkdirSync(fresh);
  const { code, stdout } = await withoutPermission(fresh, writer(fresh, 40));
  expect(stdout).toMatch(/^FILE_WRITE: Could not write .*: name a folder you may write to/);
  expect(code).toBe(1);

  const run = newRun();
  const child = start(writer(run, 5));
  await opened(child);
  await delay(duration / 10);
  kill(child, false);
  await ending(child);
  const before = readFileSync(join(run, 'results.jsonl'));
  const again = await withoutPermission(run, writer(run, 40));
  expect(again.stdout).toMatch(/^FILE_WRITE: .*: name a folder you may write to/);
  expect(readFileSync(join(run, 'results.jsonl')).equals(before)).toBe(true);
  await finish(run);

  // Nothing is left to write in a complete one.
  const complete = await withoutPermission(run, writer(run, 40));
  expect(complete.stdout).toBe('open\ncomplete 0\n');
});

describe('two processes', () => {
  test('on one run: the second is told who the first is, and takes over when that one is killed', async () => {
    const run = newRun();
    const first = start(writer(run, 1));
    await opened(first);
    process.kill(first.pid as number, 'SIGSTOP'); // it holds the run however fast the disk is
    const second = await ending(start(writer(run, 40)));
    expect(second.stdout).toMatch(new RegExp(`^RUN_BUSY: .*process ${first.pid} on .*Wait for it, stop it`));
    expect(second.code).toBe(1);
    kill(first, false);
    await ending(first);
    await finish(run);
  });

  test('starting at once leave every line once', async () => {
    const run = newRun();
    const command = writer(run, 30); // once: it writes a file that they read
    const all = await Promise.all(Array.from({ length: 4 }, () => ending(start(command))));
    expect(all.filter(({ code }) => code === 0).length).toBeGreaterThan(0);
    for (const { code, stdout, stderr } of all) {
      expect(stdout + stderr).toMatch(code === 0 ? /complete/ : /^RUN_BUSY/); // stderr says why when it is neither
    }
    await finish(run);
  });

  test('of which one was stopped long ago and its number given to another: that one does not count', async () => {
    const run = newRun();
    const first = start(writer(run, 1));
    await opened(first);
    kill(first, false);
    await ending(first);
    // Any process that lives now, under the number in the lock.
    const other = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], { stdio: 'ignore' });
    try {
      const lock = join(run, readdirSync(run).find((name) => name.startsWith('.lock-')) as string);
      writeFileSync(lock, JSON.stringify({ ...JSON.parse(readFileSync(lock, 'utf8')), pid: other.pid }));
      await finish(run);
    } finally {
      other.kill('SIGKILL');
    }
  });
});
