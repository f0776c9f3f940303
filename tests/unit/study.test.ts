import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { memoryStore } from '../../src/experiment/memory-store.js';
import { RunFolder } from '../../src/experiment/run-folder.js';
import type { StudyLine } from '../../src/experiment/types.js';
import { runUnits, type Unit } from '../../src/studies/study.js';
import { expectError, temporaryFolder } from './helpers.js';
import { sampleManifest, sampleVector } from './run-samples.js';

const parent = await temporaryFolder();

interface Sum {
  readonly total: number;
  readonly vector?: string;
}
type Line = Sum & StudyLine;

/** Each adds what came before; `run` says which were really done, and `fail` where a kill stands for an error. */
function sums(run: number[], fail = Number.POSITIVE_INFINITY): Unit<Sum>[] {
  return [0, 1, 2, 3].map((i) => ({
    name: `part ${i}`,
    run: async (before, { store, onProgress }) => {
      if (i === fail) throw new Error('killed');
      run.push(i);
      onProgress(0.5);
      const total = before.reduce((sum, one) => sum + one.total, i);
      if (i !== 1) return { total };
      await store.saveVector('one', sampleVector(total));
      return { total, vector: 'one' };
    },
  }));
}
const units = sums([]).map(({ name }) => name);
const open = (path: string) =>
  RunFolder.open<Line>(path, sampleManifest({ study: 'sums', plan: undefined as never, units }));
const RESULTS = [{ total: 0 }, { total: 1, vector: 'one' }, { total: 3 }, { total: 7 }];

test.each([0, 1, 2, 3])(
  'killed in part %i, a study goes on with it and has the lines of an undisturbed one',
  async (at) => {
    const [whole, broken] = [join(parent, `whole-${at}`), join(parent, `broken-${at}`)];
    await using undisturbed = await open(whole);
    expect(await runUnits(sums([]), { store: undisturbed })).toEqual(RESULTS);
    {
      await using run = await open(broken);
      await expect(runUnits(sums([], at), { store: run })).rejects.toThrow('killed');
    }
    await using run = await open(broken);
    expect(run.known.size).toBe(at);
    const done: number[] = [];
    const shares: number[] = [];
    const onProgress = (p: { done: number; total: number }) => void shares.push(p.done / p.total);
    expect(await runUnits(sums(done), { store: run, onProgress })).toEqual(RESULTS);
    expect(done).toEqual([0, 1, 2, 3].slice(at));
    expect(shares).toEqual(shares.toSorted((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
    const text = (path: string) => readFile(join(path, 'results.jsonl'), 'utf8');
    expect(await text(broken)).toBe(await text(whole));
    await run.finish();
    expect((await open(broken)).complete).toBe(true);
  },
);

test('a part whose vector is gone is done again, and its line stays', async () => {
  const done: number[] = [];
  const store = memoryStore<Line>();
  await runUnits(sums([]), { store });
  const robbed = { ...store, lost: new Set(['one']) };
  expect(await runUnits(sums(done), { store: robbed })).toEqual(RESULTS);
  expect(done).toEqual([1]);
  const lines: Line[] = [];
  for await (const line of store.lines()) lines.push(line);
  expect(lines.map(({ unit }) => unit)).toEqual(units);
});

test('an aborted study does nothing more', async () => {
  const done: number[] = [];
  await expectError(() => runUnits(sums(done), { signal: AbortSignal.abort() }), 'ABORTED', /aborted/);
  expect(done).toEqual([]);
});

test('a study of other parts, or of another kind, is not gone on with', async () => {
  const path = join(parent, 'other');
  await (await open(path)).close();
  const other = sampleManifest({ study: 'products', plan: undefined as never, units });
  await expectError(() => RunFolder.open(path, other), 'RUN_MISMATCH', /study: "sums" there, "products" here/);
  await expectError(() => RunFolder.open(path, sampleManifest()), 'RUN_MISMATCH', /study: "sums" there, none here/);
  const fewer = sampleManifest({ study: 'sums', plan: undefined as never, units: units.slice(1) });
  await expectError(() => RunFolder.open(path, fewer), 'RUN_MISMATCH', /units/);
});
