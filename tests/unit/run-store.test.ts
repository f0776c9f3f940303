import { spawn } from 'node:child_process';
import { appendFile, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { Manifest } from '../../src/experiment/manifest.js';
import { RunFolder } from '../../src/experiment/run-folder.js';
import { keyOf, type ResultLine } from '../../src/experiment/types.js';
import { FULL } from '../full.js';
import { expectError, temporaryFolder } from './helpers.js';
import { EXPERIMENT, sampleLines, sampleManifest, sampleVector } from './run-samples.js';

const parent = await temporaryFolder();
/** Without the names of vectors, whose files most of these runs do without. */
const LINES = sampleLines().map(({ vector: _, ...line }): ResultLine => line);
let runs = 0;
const newPath = () => join(parent, `run-${runs++}`);
const results = (path: string) => join(path, 'results.jsonl');
const textOf = (lines: readonly object[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join('');

async function linesOf(run: RunFolder): Promise<ResultLine[]> {
  const lines: ResultLine[] = [];
  for await (const line of run.lines()) lines.push(line);
  return lines;
}

/** A run in which a process wrote these lines and was killed. */
async function brokenOff(lines: readonly object[]): Promise<string> {
  const path = newPath();
  const run = await RunFolder.open(path, sampleManifest());
  await run.close();
  await writeFile(results(path), textOf(lines));
  return path;
}

describe('lines', () => {
  test('are there again when the run is opened anew, in their order', async () => {
    const path = newPath();
    {
      await using run = await RunFolder.open(path, sampleManifest());
      expect({ known: run.known.size, notes: run.notes, complete: run.complete }).toEqual({
        known: 0,
        notes: [],
        complete: false,
      });
      await Promise.all([run.append(LINES.slice(0, 10)), run.append([]), run.append(LINES.slice(10, 20))]);
      expect(await linesOf(run)).toEqual(LINES.slice(0, 20));
    }
    await using run = await RunFolder.open(path, sampleManifest());
    expect([...run.known]).toEqual(LINES.slice(0, 20).map(keyOf));
    await run.append(LINES.slice(20));
    expect(await linesOf(run)).toEqual(LINES);
    expect(await readFile(results(path), 'utf8')).toBe(textOf(LINES));
    expect(run.manifest.sessions).toHaveLength(2);
  });

  test('a query is never written twice', async () => {
    await using run = await RunFolder.open(newPath(), sampleManifest());
    await run.append([...LINES.slice(0, 5), ...LINES.slice(0, 5)]);
    await run.append(LINES.slice(3, 8));
    expect(await linesOf(run)).toEqual(LINES.slice(0, 8));
  });

  test('cut at a byte, the run loses the torn line only and ends as an undisturbed one', async () => {
    const few = LINES.slice(0, 2);
    const whole = Buffer.from(textOf(few));
    const path = await brokenOff([]);
    /** In CI those around the ends of lines, and every seventh one, inside a character too. */
    const tried = (size: number) =>
      FULL || size % 7 === 0 || whole.subarray(Math.max(0, size - 4), size + 4).includes(10);
    for (let size = 0; size <= whole.length; size++) {
      if (!tried(size)) continue;
      await writeFile(results(path), whole.subarray(0, size));
      await using run = await RunFolder.open(path, sampleManifest());
      const kept = whole.subarray(0, size).toString('latin1').split('\n').length - 1;
      const torn = size - (whole.lastIndexOf(10, size - 1) + 1);
      expect(run.known.size).toBe(kept);
      expect(run.notes).toEqual(torn > 0 && size > 0 ? [expect.stringMatching(`\\(${torn} bytes?\\) was torn`)] : []);
      await run.append(few);
      expect((await readFile(results(path))).equals(whole)).toBe(true);
    }
  });

  test.each([
    ['half a line with a line break', '{"stage":"test"\n'],
    ['zeros of a power cut', '\0'.repeat(5000)],
    ['no UTF-8', Buffer.from([0x7b, 0xff, 0x7d, 0x0a])],
    ['an empty line', '\n'],
    ['another object', '{"a":1}\n'],
  ])('%s at the end is cut off', async (_, tail) => {
    const path = await brokenOff(LINES.slice(0, 4));
    await appendFile(results(path), tail);
    await using run = await RunFolder.open(path, sampleManifest());
    expect(run.notes).toEqual([expect.stringMatching(/torn when the run was stopped/)]);
    expect(await readFile(results(path), 'utf8')).toBe(textOf(LINES.slice(0, 4)));
  });

  test('a broken line in the middle is an error that names it, and nothing is changed', async () => {
    const path = await brokenOff(LINES.slice(0, 4));
    const bytes = await readFile(results(path));
    bytes[bytes.indexOf(10) + 3] = 0;
    await writeFile(results(path), bytes);
    await expectError(
      () => RunFolder.open(path, sampleManifest()),
      'RUN_INVALID',
      /^Line 2 of .*results\.jsonl is not JSON/,
    );
    expect((await readFile(results(path))).equals(bytes)).toBe(true);
    expect((await readdir(path)).sort()).toEqual(['manifest.json', 'results.jsonl']);
  });

  test('a line that stands there twice counts once, two answers to one query are an error', async () => {
    const path = await brokenOff([...LINES.slice(0, 3), LINES[1] as ResultLine]);
    const run = await RunFolder.open(path, sampleManifest());
    expect(await linesOf(run)).toEqual(LINES.slice(0, 3));
    expect(run.notes).toEqual([expect.stringMatching(/^1 line is in .* twice/)]);
    await run.close();
    await appendFile(results(path), textOf([{ ...LINES[2], answer: 'other' }]));
    await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_INVALID', /^Lines 3 and 5 of/);
  });

  test('something else in place of the results is refused', async () => {
    const path = await brokenOff([]);
    await rm(results(path));
    await mkdir(results(path));
    await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_INVALID', /it is a folder/);
  });
});

describe('a run', () => {
  test('keeps vectors, and knows which it has', async () => {
    const path = newPath();
    await using run = await RunFolder.open(path, sampleManifest());
    expect(await run.loadVector('a.text.seed1')).toBeUndefined();
    await run.saveVector('a.text.seed1', sampleVector(7));
    expect((await run.loadVector('a.text.seed1'))?.toArray()).toEqual(sampleVector(7).toArray());
    await truncate(join(path, 'vectors', 'a.text.seed1.safetensors'), 100);
    const damaged = /a\.text\.seed1\.safetensors is damaged\. Delete it and start the run again/;
    await expectError(() => run.loadVector('a.text.seed1'), 'VECTOR_INVALID', damaged);
    for (const name of ['../a', 'a/b', '', '.a', 'a\\b', 'a\0']) {
      await expectError(() => run.saveVector(name, sampleVector(1)), 'INVALID_ARGUMENT', /cannot name a vector/);
    }
  });

  test('that lost a vector while it was written does not become complete, and knows it when it goes on', async () => {
    const path = newPath();
    const named = LINES.map((line) => ({ ...line, vector: 'v' }));
    const run = await RunFolder.open(path, sampleManifest());
    await run.append(named);
    await run.saveVector('v', sampleVector(1));
    await rm(join(path, 'vectors', 'v.safetensors'));
    await expectError(() => run.finish(), 'RUN_INVALID', /v\.safetensors was deleted/);
    await run.close();
    const again = await RunFolder.open(path, sampleManifest());
    expect([...again.lost]).toEqual(['v']);
    await again.saveVector('v', sampleVector(1));
    await again.finish();
  });

  test('that is complete is not written again, not even locked', async () => {
    const path = newPath();
    const run = await RunFolder.open(path, sampleManifest());
    await run.append(LINES);
    await run.saveVector('v', sampleVector(1));
    await run.finish({ layer: 1 });
    const manifest = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8'));
    expect(manifest).toMatchObject({ status: 'complete', layer: 1, lines: LINES.length });
    expect(manifest.vectors).toEqual({ v: expect.stringMatching(/^[0-9a-f]{64}$/) });
    const [one, two] = [await RunFolder.open(path, sampleManifest()), await RunFolder.open(path, sampleManifest())];
    expect([one.complete, two.complete]).toEqual([true, true]);
    expect(await linesOf(one)).toEqual(LINES);
    await expect(one.append([{ ...LINES[0], item: 'new' } as ResultLine])).rejects.toThrow(/complete/);
    expect((await readdir(path)).sort()).toEqual(['manifest.json', 'results.jsonl', 'vectors']);
  });

  const [first, ...others] = LINES as [ResultLine, ...ResultLine[]];
  const ALL = [{ ...first, vector: 'named' }, ...others];
  /** A complete run with two vectors, of which one is named by a line. */
  async function completeRun(): Promise<string> {
    const path = newPath();
    const run = await RunFolder.open(path, sampleManifest());
    await run.append(ALL);
    for (const name of VECTORS) await run.saveVector(name, sampleVector(1));
    await run.finish();
    return path;
  }
  const VECTORS = ['named', 'source'];
  const vectorPath = (path: string, name: string) => join(path, 'vectors', `${name}.safetensors`);

  const whole = textOf(ALL);
  const last = whole.length - textOf(LINES.slice(-1)).length;
  test.each<[string, Buffer | undefined, number, string[]]>([
    ['its last bytes', Buffer.from(whole).subarray(0, -100), LINES.length - 1, ['complete', 'torn']],
    ['its last line', Buffer.from(whole.slice(0, last)), LINES.length - 1, ['complete']],
    ['a line in the middle', Buffer.from(textOf(ALL.toSpliced(7, 1))), LINES.length - 1, ['complete']],
    ['all of its lines', undefined, 0, ['complete']],
  ])('that was complete and has lost %s goes on, and no line is doubled', async (_, bytes, left, notes) => {
    const path = await completeRun();
    if (bytes === undefined) await rm(results(path));
    else await writeFile(results(path), bytes);
    {
      await using run = await RunFolder.open(path, sampleManifest());
      expect([run.complete, run.known.size, run.lost.size]).toEqual([false, left, 0]);
      expect(run.notes).toEqual(notes.map((note) => expect.stringContaining(note)));
      const { status, lines, vectors, results: hash } = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8'));
      expect([status, lines, vectors, hash]).toEqual(['running', undefined, undefined, undefined]);
      await run.append(ALL);
      await run.finish();
    }
    await using run = await RunFolder.open(path, sampleManifest());
    expect([run.complete, run.notes]).toEqual([true, []]);
    const text = await readFile(results(path), 'utf8');
    expect(text.split('\n').sort()).toEqual(whole.split('\n').sort());
  });

  test('that was complete and has lost vectors goes on, and knows which', async () => {
    const path = await completeRun();
    for (const name of VECTORS) await rm(vectorPath(path, name));
    const open = async () => {
      await using run = await RunFolder.open(path, sampleManifest());
      return { complete: run.complete, lost: [...run.lost], known: run.known.size };
    };
    expect(await open()).toEqual({ complete: false, lost: VECTORS, known: LINES.length });
    // A run that is under way knows only those that its lines name.
    expect(await open()).toEqual({ complete: false, lost: ['named'], known: LINES.length });
  });

  test.each<[string, (path: string) => Promise<void>, RegExp]>([
    ['a line', (path) => writeFile(results(path), whole.replace('"rank":', '"rank":1')), /results\.jsonl was changed/],
    ['a line too many', (path) => appendFile(results(path), textOf([{ ...LINES[0], item: 'x' }])), /results\.jsonl/],
    ['a line twice', (path) => appendFile(results(path), textOf(ALL.slice(0, 1))), /results\.jsonl was changed/],
    ['a vector', (path) => sampleVector(2).save(vectorPath(path, 'source')), /source\.safetensors was changed/],
    ['half a vector', (path) => truncate(vectorPath(path, 'source'), 50), /source\.safetensors was changed/],
    ['a vector more', (path) => sampleVector(2).save(vectorPath(path, 'more')), /more\.safetensors was changed/],
  ])('that was complete and has %s that it had not is refused, and left as it is', async (_, change, message) => {
    const path = await completeRun();
    await change(path);
    const files = async () => [await readFile(results(path)), await readFile(join(path, 'manifest.json'))];
    const before = await files();
    await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_INVALID', message);
    await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_INVALID', /delete it and start the run/);
    expect(await files()).toEqual(before);
  });

  test.each([
    ['more', [...LINES, { ...(LINES[0] as ResultLine), item: 'x' }], LINES.length + 1],
    ['fewer', LINES.slice(1), LINES.length - 1],
  ])('with %s lines than were planned does not become complete', async (_, lines, n) => {
    await using run = await RunFolder.open(newPath(), sampleManifest());
    await run.append(lines);
    await expectError(
      () => run.finish(),
      'RUN_INVALID',
      new RegExp(`has ${n} lines, but ${LINES.length} were planned`),
    );
    expect(JSON.parse(await readFile(join(run.path, 'manifest.json'), 'utf8')).status).toBe('running');
  });

  const model = sampleManifest().model;
  test.each<[string, Partial<Manifest>, RegExp]>([
    [
      'experiment',
      { options: { ...EXPERIMENT, shots: 4 } },
      /another run: shots: 5 there, 4 here\. Name another folder/,
    ],
    [
      'condition',
      { options: { ...EXPERIMENT, conditions: EXPERIMENT.conditions.slice(1) } },
      /another run: conditions: No Context, Text Patch there; Text Patch here\. /,
    ],
    [
      'field of a condition',
      { options: { ...EXPERIMENT, conditions: EXPERIMENT.conditions.map((one) => ({ ...one, strength: 2 })) } },
      /conditions\.1\.strength: none there, 2 here/,
    ],
    [
      'list of tasks',
      { options: { ...EXPERIMENT, tasks: ['a', 'b', 'c', 'd'] }, tasks: { a: { sha256: '0', items: 10 } } },
      /another run: tasks: country-capital, food-color there; a, b, c, … here\. Name/,
    ],
    ['list of seeds', { options: { ...EXPERIMENT, seeds: [] } }, /another run: seeds: [\d, ]+ there; none here\. /],
    ['model', { model: { ...model, hash: 'ef'.repeat(32) } }, /model\.sha256: "abab.* there, "efef.* here/],
    ['picture encoder', { model: { ...model, mmproj: '12' } }, /model\.picture encoder: none there, "12" here/],
    [
      'task file',
      { tasks: { ...sampleManifest().tasks, 'food-color': { sha256: '0', items: 10 } } },
      /tasks\.food-color\.sha256: "cdcd.* there, "0" here/,
    ],
    [
      'picture of a task',
      { tasks: { ...sampleManifest().tasks, 'food-color': { sha256: 'cd'.repeat(32), items: 10, pictures: '0' } } },
      /tasks\.food-color\.pictures: none there, "0" here/,
    ],
    [
      'width of pictures',
      { model: { ...sampleManifest().model, imageWidth: 224 } },
      /image width: none there, 224 here/,
    ],
    ['shard', { shard: { index: 1, of: 2 } }, /shard: none there, "1\/2" here/],
  ])('of another %s is refused', async (_, other, message) => {
    const path = await brokenOff(LINES.slice(0, 2));
    const before = await readFile(join(path, 'manifest.json'), 'utf8');
    await expectError(() => RunFolder.open(path, sampleManifest(other)), 'RUN_MISMATCH', message);
    expect(await readFile(join(path, 'manifest.json'), 'utf8')).toBe(before);
    await (await RunFolder.open(path, sampleManifest({ command: 'another one', started: 'later' }))).close();
  });

  test('does not take over a folder of something else', async () => {
    const [files, report, broken] = [newPath(), newPath(), newPath()];
    await mkdir(files);
    await writeFile(join(files, 'thesis.tex'), '');
    await expectError(() => RunFolder.open(files, sampleManifest()), 'FILE_WRITE', /not empty \(thesis\.tex\)/);
    const page = await RunFolder.create(report, { ...sampleManifest({ plan: [] }), options: {}, experiment: 'lens' });
    await page.finish();
    await expectError(
      () => RunFolder.open(report, sampleManifest()),
      'RUN_INVALID',
      /does not describe a run of scored/,
    );
    await mkdir(broken);
    await writeFile(join(broken, 'manifest.json'), '{"status":');
    await expectError(() => RunFolder.open(broken, sampleManifest()), 'RUN_INVALID', /is not JSON/);
    await expectError(() => RunFolder.open(join(files, 'thesis.tex'), sampleManifest()), 'FILE_WRITE', /thesis\.tex/);
    expect(await readdir(files)).toEqual(['thesis.tex']);
  });

  test('is swept of what a killed process left', async () => {
    const path = await brokenOff(LINES.slice(0, 2));
    await mkdir(join(path, 'vectors'));
    await writeFile(join(path, 'vectors', '.v.safetensors.123.0123abcd.tmp'), 'half');
    await writeFile(join(path, '.manifest.json.123.0123abcd.tmp'), 'half');
    await (await RunFolder.open(path, sampleManifest())).close();
    expect([await readdir(join(path, 'vectors')), (await readdir(path)).sort()]).toEqual([
      [],
      ['manifest.json', 'results.jsonl', 'vectors'],
    ]);
  });
});

describe('the lock', () => {
  test('keeps a second writer out until the first one is done, and names it', async () => {
    const path = newPath();
    const first = await RunFolder.open(path, sampleManifest());
    const busy = new RegExp(`process ${process.pid} on ${hostname()}, since 20`);
    await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_BUSY', busy);
    await first.close();
    await first.close();
    const again = await RunFolder.open(path, sampleManifest());
    await again.close();
    expect((await readdir(path)).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('of many at the same moment exactly one goes on', async () => {
    for (let round = 0; round < 3; round++) {
      const path = newPath();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 6 }, () => RunFolder.open(path, sampleManifest())),
      );
      const opened = outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : []));
      const codes = outcomes.flatMap((o) => (o.status === 'rejected' ? [o.reason.code] : []));
      expect([opened.length, codes]).toEqual([1, Array(5).fill('RUN_BUSY')]);
      await opened[0]?.close();
    }
  });

  /** A lock file as a process would have left it. */
  async function leave(path: string, owner: object): Promise<void> {
    await mkdir(path, { recursive: true });
    await writeFile(join(path, '.lock-0123456789abcdef'), JSON.stringify(owner));
  }
  const own = async () => {
    const path = newPath();
    await using _ = await RunFolder.open(path, sampleManifest());
    const name = (await readdir(path)).find((entry) => entry.startsWith('.lock-')) as string;
    return JSON.parse(await readFile(join(path, name), 'utf8'));
  };

  test('of a process that is gone, or was started later, or before the machine was, does not hold', async () => {
    const child = spawn(process.execPath, ['-e', '']);
    await new Promise((resolve) => child.on('close', resolve));
    const me = await own();
    for (const dead of [{ pid: child.pid }, { start: '1' }, { boot: 'another' }]) {
      const path = newPath();
      await leave(path, { ...me, ...dead });
      await (await RunFolder.open(path, sampleManifest())).close();
      expect((await readdir(path)).filter((name) => name.startsWith('.'))).toEqual([]);
    }
  });

  test('of another machine, or one that cannot be read, holds, and the way out is told', async () => {
    const [there, torn] = [newPath(), newPath()];
    await leave(there, { ...(await own()), host: 'elsewhere', pid: 7 });
    await expectError(
      () => RunFolder.open(there, sampleManifest()),
      'RUN_BUSY',
      /process 7 on elsewhere.*delete .*\.lock-0123456789abcdef/,
    );
    await mkdir(torn);
    await writeFile(join(torn, '.lock-0'), '{');
    await expectError(() => RunFolder.open(torn, sampleManifest()), 'RUN_BUSY', /another process.*delete .*\.lock-0/);
  });
});
