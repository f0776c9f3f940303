// `xpatch eval` on the demo model under everything that ends a run: in the end the lines and tables of an undisturbed one.
import { type ChildProcess, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { splitTask } from '../../src/tasks/split.js';
import { loadTask } from '../../src/tasks/task.js';
import { Random } from '../../src/util/random.js';
import { FULL } from '../full.js';
import {
  type Ended,
  ending,
  faultFolder,
  KILLS,
  kill,
  killRuns,
  launch,
  leftovers,
  MAIN,
  plainUser,
  SMALL_DISKS,
  sorted,
  tablesOf,
  wholeLines,
  withoutPermission,
} from './helpers.js';

const folder = faultFolder();
const SIZES = { shots: 3, validation: 4, test: 4 };
const SET = ['seeds=[1]', ...Object.entries(SIZES).map(([name, value]) => `${name}=${value}`)].flatMap((one) => [
  '--set',
  one,
]);
/** A condition of each kind of work; the rest of the preset is more of the same. */
const CONDITIONS = [
  '{name: No Context, kind: bare}',
  '{name: Image Prompt, kind: prompt, spec: image}',
  '{name: Image Patch, kind: patch, spec: image}',
  '{name: Identity Patch, kind: patch, spec: text, control: identity}',
];
const conditions = (list: readonly string[]) => ['--set', `conditions=[${list}]`];
const SHIPPED = ['--set', 'tasks=[country-capital,food-color]', ...SET, ...conditions(CONDITIONS)];
let runs = 0;
const newRun = () => join(folder, `run-${runs++}`);

function evalCommand(run: string, settings = SHIPPED): string[] {
  const model = ['-m', 'demo', '--device', 'cpu']; // on all cores
  return [process.execPath, '--no-warnings', MAIN, 'eval', 'main', ...model, ...settings, '--json', '-o', run];
}
const launched = ([command, ...args]: readonly string[]) => launch(command as string, args, folder);
const start = (run: string, settings?: string[]): ChildProcess => launched(evalCommand(run, settings));

interface Event {
  event?: string;
  pid?: number;
  lines?: number;
  parallel?: number;
  reason?: string;
  error?: { code: string; message: string };
}

/** Calls back for every event that the command prints. */
function onEvent(child: ChildProcess, listener: (event: Event) => void): void {
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += chunk;
    const lines = text.split('\n');
    text = lines.pop() as string;
    for (const line of lines) listener(JSON.parse(line));
  });
}
const next = (child: ChildProcess, name: string) =>
  new Promise<Event>((resolve) => onEvent(child, (event) => event.event === name && resolve(event)));
function errorOf(ended: Ended): Event['error'] {
  const last = ended.stdout.trim().split('\n').at(-1);
  if (!last) throw new Error(`It printed nothing: ${JSON.stringify(ended)}`);
  return JSON.parse(last).error;
}

interface Result {
  lines: string[];
  tables: Record<string, string>;
}

/** Runs what is left of a run, and checks that it is whole. */
async function finish(run: string, settings?: string[]): Promise<Result> {
  expect(await ending(start(run, settings))).toMatchObject({ code: 0, stderr: '' });
  return finished(run);
}

/** Checks that a run is whole. */
function finished(run: string): Result {
  const lines = sorted(wholeLines(run));
  const manifest = JSON.parse(readFileSync(join(run, 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({ status: 'complete', lines: lines.length });
  expect(existsSync(join(run, 'report.html'))).toBe(true);
  expect(leftovers(run)).toEqual([]);
  return { lines, tables: tablesOf(run) };
}

let undisturbed: Result;
const WHOLE = newRun();
/** How long it takes, milliseconds. */
let duration = 0;
beforeAll(async () => {
  const begun = Date.now();
  undisturbed = await finish(WHOLE);
  duration = Date.now() - begun;
  expect(undisturbed.lines.length).toBeGreaterThan(80);
}, 300_000);

test(`killed at ${KILLS} random instants, a run ends as an undisturbed one`, async () => {
  const random = new Random(1, 'kills');
  await killRuns({ newRun, start, duration }, random, {
    group: () => random.uniform() < 0.5, // the command alone, whose process with the model has to notice, or both at once
    whole: async (run) => expect(await finish(run)).toEqual(undisturbed),
  });
}, 1_800_000);

test('a complete run that lost lines, vectors and tables, killed while it is mended, ends as it was', async () => {
  const run = newRun();
  cpSync(WHOLE, run, { recursive: true });
  const results = join(run, 'results.jsonl');
  const lines = readFileSync(results, 'utf8').split('\n');
  writeFileSync(results, lines.filter((_, i) => i % 3 > 0).join('\n'));
  for (const name of ['tables', 'vectors', 'report.html']) rmSync(join(run, name), { recursive: true });
  const child = start(run);
  await next(child, 'batch');
  kill(child, true);
  await ending(child);
  expect(await finish(run)).toEqual(undisturbed);
  expect(await finish(run)).toEqual(undisturbed);
  const vectors = new Set(wholeLines(run).flatMap(({ vector }) => (vector ? [`${vector}.safetensors`] : [])));
  expect(readdirSync(join(run, 'vectors'))).toEqual(expect.arrayContaining([...vectors]));
}, 300_000);

describe('the process with the model', () => {
  test('is started again when it crashes, with half as many items at a time, and the run ends as if nothing had happened', async () => {
    const run = newRun();
    const child = start(run);
    const ended = ending(child);
    let [pid, crashed] = [0, false];
    const restarts: string[] = [];
    const lanes: number[] = [];
    onEvent(child, (event) => {
      if (event.event === 'restart') restarts.push(event.reason as string);
      if (event.event === 'start') lanes.push(event.parallel as number);
      if (event.event === 'process') pid = event.pid as number;
      if (event.event !== 'batch' || crashed) return;
      crashed = true;
      process.kill(pid, 'SIGABRT'); // as an assertion in ggml does
    });
    expect(await ended).toMatchObject({ code: 0 });
    expect(restarts).toEqual([
      expect.stringMatching(/^was ended by SIGABRT while .* of \w+-\w+, seed 1 \(\d+ of \d+ done\)$/),
    ]);
    const cores = Math.min(availableParallelism(), 8); // one core has nothing to halve
    expect(lanes).toEqual([cores, Math.max(1, Math.floor(cores / 2))]);
    expect(finished(run)).toEqual(undisturbed);
  });

  test('that crashes again and again ends the run with a way out, and it can go on later', async () => {
    const run = newRun();
    const first = start(run);
    await next(first, 'batch');
    kill(first, true);
    await ending(first);
    const before = wholeLines(run).length;
    const child = start(run);
    onEvent(child, ({ event, pid }) => event === 'process' && process.kill(pid as number, 'SIGKILL'));
    const outcome = await ending(child);
    expect(outcome.code).toBe(1);
    expect(errorOf(outcome)).toEqual({
      code: 'MODEL_CRASHED',
      message: expect.stringMatching(/SIGKILL.*twice.*--memory.*same command resumes from there/),
    });
    expect(wholeLines(run)).toHaveLength(before);
    expect(await finish(run)).toEqual(undisturbed);
  });
});

describe.each(SMALL_DISKS)('$name', (disk) => {
  // Full while lines are written, and while the report is.
  test.each(FULL ? [30, 120] : [disk === SMALL_DISKS[0] ? 30 : 120])(
    'of %i kB ends the run with a way out, and it can go on elsewhere',
    async (kilobytes) => {
      const run = newRun();
      mkdirSync(run);
      const outcome = await disk.run(kilobytes, run, evalCommand(run));
      expect(outcome.code).toBe(1);
      expect(errorOf(outcome)).toMatchObject({ code: 'FILE_WRITE', message: expect.stringMatching(disk.problem) });
      wholeLines(run);
      expect(await finish(run)).toEqual(undisturbed);
    },
  );
});

test('a folder that may not be written is refused with a way out', async () => {
  const run = newRun();
  mkdirSync(run);
  const outcome = await withoutPermission(run, evalCommand(run));
  expect(outcome.code).toBe(1);
  expect(errorOf(outcome)).toMatchObject({
    code: 'FILE_WRITE',
    message: expect.stringMatching(/name a folder you may write to/),
  });
});

test('a folder that turns read-only while it is written ends the run with a way out, and it goes on when it may', async () => {
  const run = newRun();
  const child = launched(plainUser(evalCommand(run)));
  let locked = false;
  onEvent(child, ({ event, lines = 0 }) => {
    if (locked || event !== 'batch' || lines === 0) return;
    locked = true;
    spawnSync('chmod', ['-R', 'a-w', run]);
  });
  const outcome = await ending(child);
  spawnSync('chmod', ['-R', 'u+w', run]);
  expect(locked).toBe(true);
  expect(outcome.code).toBe(1);
  expect(errorOf(outcome)).toMatchObject({
    code: 'FILE_WRITE',
    message: expect.stringMatching(/name a folder you may write to/),
  });
  expect(await finish(run)).toEqual(undisturbed);
});

test('a second process on the same run is refused, and does not disturb the first one', async () => {
  const run = newRun();
  const first = start(run);
  const ended = ending(first);
  await next(first, 'batch');
  process.kill(-(first.pid as number), 'SIGSTOP'); // however fast it is
  const second = await ending(start(run));
  expect(second.code).toBe(1);
  expect(errorOf(second)).toMatchObject({ code: 'RUN_BUSY', message: expect.stringMatching(/process \d+ on /) });
  process.kill(-(first.pid as number), 'SIGCONT');
  expect(await ended).toMatchObject({ code: 0 });
  expect(finished(run)).toEqual(undisturbed);
});

test('a run whose whole folder is deleted under it ends with an error, and the same command does it anew', async () => {
  const run = newRun();
  const child = start(run);
  let deleted = false;
  onEvent(child, ({ event, lines = 0 }) => {
    if (deleted || event !== 'batch' || lines === 0) return;
    deleted = true;
    rmSync(run, { recursive: true });
  });
  const outcome = await ending(child);
  expect(errorOf(outcome)).toMatchObject({ code: 'RUN_INVALID', message: expect.stringMatching(/was deleted.*again/) });
  expect(outcome.code).toBe(1);
  expect(await finish(run)).toEqual(undisturbed);
});

test('a picture that vanishes in mid-run is named, and the run goes on when it is back', async () => {
  const shipped = await loadTask('country-capital', { pictures: true });
  const items = shipped.items.filter(({ image }) => image !== undefined).slice(0, 20);
  mkdirSync(join(folder, 'pictures'));
  const file = (image: string) => `pictures/${basename(image)}`;
  for (const { image } of items) copyFileSync(image as string, join(folder, file(image as string)));
  for (const name of ['capitals', 'cities']) {
    const list = items.map(({ input, output, image }) => ({ input, output, image: file(image as string) }));
    writeFileSync(join(folder, `${name}.json`), JSON.stringify(list));
  }
  const settings = ['--set', 'tasks=[./capitals.json,./cities.json]', ...SET, ...conditions(CONDITIONS)];
  const whole = await finish(newRun(), settings);

  const task = await loadTask(join(folder, 'cities.json'), { pictures: true });
  const last = splitTask(task, 1, { ...SIZES, pictures: true }).test.at(-1)?.image as string;
  const run = newRun();
  const child = start(run, settings);
  let vanished = false;
  onEvent(child, ({ event, lines = 0 }) => {
    if (vanished || event !== 'batch' || lines === 0) return;
    vanished = true;
    renameSync(last, `${last}.away`);
  });
  const outcome = await ending(child);
  expect(outcome.code).toBe(1);
  expect(errorOf(outcome)?.message).toContain(basename(last));
  expect(errorOf(outcome)?.code).not.toBe('UNEXPECTED');
  expect(wholeLines(run).length).toBeGreaterThan(0);
  renameSync(`${last}.away`, last);
  expect(await finish(run, settings)).toEqual(whole);
});
