import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { batchesOf } from '../../src/experiment/batches.js';
import { takeValidation } from '../../src/experiment/layer-from.js';
import { mergeShards } from '../../src/experiment/merge.js';
import { RunFolder } from '../../src/experiment/run-folder.js';
import { membersOf, parseShard, type Shard } from '../../src/experiment/shard.js';
import type { ResultLine } from '../../src/experiment/types.js';
import type { TaskSplit } from '../../src/tasks/split.js';
import { expectError, temporaryFolder } from './helpers.js';
import { EXPERIMENT, sampleLines, sampleManifest, sampleVector } from './run-samples.js';

const parent = await temporaryFolder();
const LINES = sampleLines();
let runs = 0;
const newPath = () => join(parent, `run-${runs++}`);
const sorted = (lines: readonly ResultLine[]) => lines.map((line) => JSON.stringify(line)).sort();

const inputsOf = (stage: string, task: string, seed: number) => [
  ...new Set(
    LINES.filter((line) => line.stage === stage && line.task === task && line.seed === seed).map(({ item }) => item),
  ),
];
/** The tasks of the sample under its seeds. */
const CELLS = EXPERIMENT.seeds.flatMap((seed) =>
  EXPERIMENT.tasks.map((name) => {
    const items = (stage: string) => inputsOf(stage, name, seed).map((input) => ({ input, output: '' }));
    return {
      split: { task: { name }, seed, validation: items('validation'), test: items('test') } as unknown as TaskSplit,
    };
  }),
);
const linesIn = (shard: Shard) => LINES.filter(membersOf(shard, { experiment: EXPERIMENT, cells: CELLS }, 3));

const planOf = (lines: readonly ResultLine[]) =>
  sampleManifest().plan.map((entry) => ({
    ...entry,
    count: lines.filter(({ stage, condition }) => stage === entry.stage && condition === entry.condition).length,
  }));

/** The run of one process, or of one shard, with `change` made to its lines. */
async function finishedRun(shard?: Shard, change = (line: ResultLine) => line, vector = 1): Promise<string> {
  const path = newPath();
  const own = (shard ? linesIn(shard) : LINES).map(change);
  const plan = planOf(own);
  const run = await RunFolder.open(path, sampleManifest({ plan, ...(shard && { shard }) }));
  await run.append(own);
  await run.saveVector('food-color.text.seed1', sampleVector(vector));
  await run.finish();
  return path;
}
const shardsOf = (of: number) => Promise.all(Array.from({ length: of }, (_, i) => finishedRun({ index: i + 1, of })));
const merge = (paths: readonly string[], output = newPath()) => mergeShards(paths, output, 'xpatch merge');
async function linesOf(run: RunFolder): Promise<ResultLine[]> {
  const lines: ResultLine[] = [];
  for await (const line of run.lines()) lines.push(line);
  return lines;
}

describe('shards', () => {
  test.each([1, 2, 3, 7])('of %i have every test query once, whole batches, and all validation queries', (of) => {
    const shards = Array.from({ length: of }, (_, i) => linesIn({ index: i + 1, of }));
    const tested = shards.map((lines) => lines.filter(({ stage }) => stage === 'test'));
    expect(sorted(tested.flat())).toEqual(sorted(LINES.filter(({ stage }) => stage === 'test')));
    for (const cell of CELLS) {
      const { task, seed } = cell.split;
      for (const batch of batchesOf({ experiment: EXPERIMENT }, cell, 'test', 3)) {
        const asked = new Set(batch.map(({ input }) => JSON.stringify([task.name, seed, input])));
        const own = tested.map(
          (lines) => lines.filter((line) => asked.has(JSON.stringify([line.task, line.seed, line.item]))).length,
        );
        expect(own.filter((n) => n > 0)).toEqual([2 * batch.length]);
      }
    }
    for (const lines of shards) {
      expect(lines.filter(({ stage }) => stage === 'validation')).toEqual(
        LINES.filter(({ stage }) => stage === 'validation'),
      );
    }
  });

  test.each([2, 3, 4, 8])('of %i are equally large to two batches, whatever else is asked about an item', (of) => {
    const items = Array.from({ length: 401 }, (_, i) => ({ input: `item ${i}`, output: '' }));
    const cellOf = (name: string, from: number) => ({
      split: {
        task: { name },
        seed: 1,
        validation: items.slice(0, 30),
        test: items.slice(from),
      } as unknown as TaskSplit,
    });
    const cells = [cellOf('a', 30), cellOf('b', 200)];
    const asked = cells.flatMap(({ split: { task, seed, test } }) =>
      test.map(({ input }) => ({ stage: 'test' as const, task: task.name, seed, item: input })),
    );
    const study = { experiment: EXPERIMENT, cells };
    const parts = Array.from({ length: of }, (_, i) => asked.filter(membersOf({ index: i + 1, of }, study, 3)));
    const batch = Math.max(...cells.flatMap((cell) => batchesOf(study, cell, 'test', 3).map((some) => some.length)));
    const texts = (queries: typeof asked) => queries.map((query) => JSON.stringify(query)).sort();
    expect(texts(parts.flat())).toEqual(texts(asked));
    for (const { length } of parts) expect(Math.abs(length - asked.length / of)).toBeLessThanOrEqual(2 * batch);
    // What is asked about an item is mostly in one of them.
    const twice = parts.map((part) => new Set(part.map(({ item }) => item)).size).reduce((a, b) => a + b, 0);
    expect(twice - 371).toBeLessThanOrEqual(4 * batch * (of - 1));
  });

  test.each([1, 2, 3, 7])(
    'of the validation, %i of them, have each of its queries once and few cells in common',
    (of) => {
      const shards = Array.from({ length: of }, (_, i) => linesIn({ index: i + 1, of, stage: 'validation' }));
      expect(sorted(shards.flat())).toEqual(sorted(LINES.filter(({ stage }) => stage === 'validation')));
      const cells = shards.map((lines) => new Set(lines.map(({ task, seed }) => `${task} ${seed}`)));
      expect(cells.reduce((sum, { size }) => sum + size, 0)).toBeLessThanOrEqual(CELLS.length + of - 1);
    },
  );

  test('are written i/n', async () => {
    expect(parseShard(' 2/5 ')).toEqual({ index: 2, of: 5 });
    for (const text of ['0/2', '3/2', '1', '1/0', 'a/b', '-1/2', '1.5/2']) {
      await expectError(() => parseShard(text), 'INVALID_ARGUMENT', /2\/5, the second of five/);
    }
  });
});

describe('merged shards', () => {
  test.each([1, 2, 5])('of %i equal one run, line for line up to order', async (of) => {
    const shards = await shardsOf(of);
    await using run = await merge([...shards].reverse());
    expect(sorted(await linesOf(run))).toEqual(sorted(LINES));
    const whole = sampleManifest();
    expect(run.manifest).toMatchObject({ options: whole.options, status: 'running', plan: expect.anything() });
    expect([...(run.manifest.plan ?? [])].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))).toEqual(
      [...whole.plan].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    );
    expect(run.manifest.shard).toBeUndefined();
    expect(run.manifest.shards).toHaveLength(of);
    expect((await run.loadVector('food-color.text.seed1'))?.toArray()).toEqual(sampleVector(1).toArray());
    // The identity is that of a run without shards: resuming it is a matter of the folder alone.
    await run.finish();
    const again = await RunFolder.open(run.path, whole);
    expect(again.complete).toBe(true);
  });

  test.each([1, 3])('of the validation, %i of them, are the run that a test goes on from', async (of) => {
    const shards = await Promise.all(
      Array.from({ length: of }, (_, i) => finishedRun({ index: i + 1, of, stage: 'validation' })),
    );
    const validation = LINES.filter(({ stage }) => stage === 'validation');
    await using merged = await merge(shards);
    expect(sorted(await linesOf(merged))).toEqual(sorted(validation));
    expect(merged.manifest.shard).toEqual({ index: 1, of: 1, stage: 'validation' });
    await merged.finish();

    const parts = await Promise.all(
      [1, 2].map(async (index) => {
        const shard = { index, of: 2 };
        const own = linesIn(shard);
        const plan = planOf(own);
        const run = await RunFolder.open(newPath(), sampleManifest({ shard, plan, layerFrom: merged.path }));
        await takeValidation(merged.path, run);
        expect(sorted(await linesOf(run))).toEqual(sorted(validation));
        expect((await run.loadVector('food-color.text.seed1'))?.toArray()).toEqual(sampleVector(1).toArray());
        await run.append(own);
        await run.finish();
        return run.path;
      }),
    );
    await using whole = await merge(parts);
    expect(sorted(await linesOf(whole))).toEqual(sorted(LINES));
    expect([whole.manifest.shard, whole.manifest.layerFrom]).toEqual([undefined, undefined]);
  });

  test('a validation that is not whole, not complete, changed or of another experiment is not gone on from', async () => {
    const [part] = await Promise.all([finishedRun({ index: 1, of: 2, stage: 'validation' })]);
    const open = (more = {}) => RunFolder.open(newPath(), sampleManifest({ shard: { index: 1, of: 2 }, ...more }));
    await using run = await open();
    await expectError(() => takeValidation(part, run), 'RUN_INVALID', /a part of the validation\. Merge all/);
    await expectError(() => takeValidation(parent, run), 'RUN_INVALID', /is not a run/);
    await using unfinished = await open({ shard: { index: 1, of: 1, stage: 'validation' } });
    await expectError(() => takeValidation(unfinished.path, run), 'RUN_INVALID', /not complete/);
    const whole = await finishedRun({ index: 1, of: 1, stage: 'validation' });
    await using other = await open({ options: { ...EXPERIMENT, shots: 3 } });
    await expectError(() => takeValidation(whole, other), 'RUN_MISMATCH', /: shots: 5 there, 3 here/);
    const lines = join(whole, 'results.jsonl');
    await writeFile(lines, (await readFile(lines, 'utf8')).replace('"answer":"', '"answer":"x'));
    await expectError(
      () => takeValidation(whole, run),
      'RUN_INVALID',
      /was changed after it was complete.*results\.jsonl/,
    );
  });

  test('go on after a merge that was killed', async () => {
    const shards = await shardsOf(2);
    const output = newPath();
    const first = await merge(shards, output);
    await first.close();
    const results = join(output, 'results.jsonl');
    const bytes = await readFile(results);
    await writeFile(results, bytes.subarray(0, bytes.length / 3));
    await using run = await merge(shards, output);
    expect(sorted(await linesOf(run))).toEqual(sorted(LINES));
  });

  test('may round differently, and the first one counts', async () => {
    const rounded = (line: ResultLine) => ({ ...line, probability: (line.probability as number) + 1e-4 });
    const paths = [await finishedRun({ index: 1, of: 2 }), await finishedRun({ index: 2, of: 2 }, rounded, 1.001)];
    await using run = await merge(paths);
    const lines = await linesOf(run);
    expect(lines).toHaveLength(LINES.length);
    expect(lines.filter(({ stage }) => stage === 'validation')).toEqual(
      LINES.filter(({ stage }) => stage === 'validation'),
    );
  });

  test('that answer differently, or have other vectors, are refused', async () => {
    const first = await finishedRun({ index: 1, of: 2 });
    const other = await finishedRun({ index: 2, of: 2 }, (line) => ({ ...line, answer: 'other' }));
    await expectError(() => merge([first, other]), 'RUN_MISMATCH', /answer validation query .* differently: answer: /);
    const vectors = await finishedRun({ index: 2, of: 2 }, undefined, 3);
    await expectError(() => merge([first, vectors]), 'RUN_MISMATCH', /food-color\.text\.seed1 .*layer 0/);
  });

  test('that were changed after they were complete are refused, each file of them', async () => {
    const [first, second] = (await shardsOf(2)) as [string, string];
    const lines = join(second, 'results.jsonl');
    const vector = join(second, 'vectors', 'food-color.text.seed1.safetensors');
    const text = await readFile(lines, 'utf8');
    for (const [file, change] of [
      [lines, () => writeFile(lines, `${text.slice(0, -1)}\n${text.slice(text.lastIndexOf('{'))}`)],
      [lines, () => writeFile(lines, text.replace('"answer":"', '"answer":"x'))],
      [lines, () => writeFile(lines, text.slice(0, -9))],
      [lines, () => rm(lines)],
      [vector, () => sampleVector(1.001).save(vector)],
      [vector, () => rm(vector)],
    ] as const) {
      const before = await readFile(file);
      await change();
      const message = new RegExp(
        `${second} was changed after it was complete.*${file.slice(second.length + 1)}.*Start its command again`,
      );
      await expectError(() => merge([first, second]), 'RUN_INVALID', message);
      await writeFile(file, before);
    }
    await (await merge([first, second])).close();
  });

  test('that are missing, not complete, no shards, or of another experiment are refused', async () => {
    const [first, , third] = await shardsOf(3);
    await expectError(() => merge([first as string, third as string]), 'RUN_INVALID', /Shards are missing: 2\/3\./);
    const open = await RunFolder.open(newPath(), sampleManifest({ shard: { index: 2, of: 3 } }));
    await open.close();
    await expectError(() => merge([first as string, open.path]), 'RUN_INVALID', /not complete.*to resume it/);
    const whole = await finishedRun();
    await expectError(() => merge([whole]), 'RUN_INVALID', /is a whole run, not a shard/);
    await expectError(() => merge([parent]), 'RUN_INVALID', /is not a run/);
    const [other] = await shardsOf(2);
    await expectError(
      () => merge([first as string, other as string]),
      'RUN_MISMATCH',
      /shard: "1\/2" there, "1\/3" here/,
    );
    const config = { ...EXPERIMENT, shots: 3 };
    const foreign = await RunFolder.open(
      newPath(),
      sampleManifest({ options: config, shard: { index: 2, of: 3 }, plan: [] }),
    );
    await foreign.finish();
    await expectError(() => merge([first as string, foreign.path]), 'RUN_MISMATCH', /: shots: 3 there, 5 here/);
  });
});
