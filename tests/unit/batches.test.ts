// Which items are asked about together: as many as are worth it, and the same whoever asks.
import { describe, expect, test } from '@jest/globals';
import { batchesOf, evenly } from '../../src/experiment/batches.js';
import { membersOf, type Shard } from '../../src/experiment/shard.js';
import type { Condition, Experiment } from '../../src/experiment/types.js';
import type { TaskSplit } from '../../src/tasks/split.js';
import { EXPERIMENT } from './run-samples.js';

const items = (kind: string, n: number) =>
  Array.from({ length: n }, (_, i) => ({ input: `${kind} ${i}`, output: 'o' }));
const cellOf = (seed: number, n = 100) => ({
  split: { task: { name: 't' }, seed, validation: items('v', 30), test: items('i', n) } as unknown as TaskSplit,
});
const patch: Condition = { name: 'Text Patch', kind: 'patch', spec: 'text' };
const asking = (conditions: Condition[], more: Partial<Experiment> = {}) => ({
  experiment: { ...EXPERIMENT, conditions, ...more },
});
const sizes = (...args: Parameters<typeof batchesOf>) => batchesOf(...args).map(({ length }) => length);

describe('batches', () => {
  test('have up to 128 lines, of validation one for each layer', () => {
    expect(sizes(asking([patch]), cellOf(1, 200), 'test', 8)).toEqual([100, 100]);
    expect(sizes(asking([patch]), cellOf(1), 'validation', 8)).toEqual([15, 15]);
    expect(sizes(asking([patch]), cellOf(1), 'validation', 30)).toEqual([3, 4, 4, 4, 3, 4, 4, 4]);
    expect(sizes(asking([patch]), cellOf(1), 'validation', 150)).toEqual(Array(30).fill(1));
    expect(sizes(asking([patch], { layers: [1, 2, 3, 4] }), cellOf(1, 64), 'test', 8)).toEqual([32, 32]);
    expect(sizes(asking([patch], { layers: 'all' }), cellOf(1), 'test', 80)).toEqual(Array(100).fill(1));
  });

  test('have one item where its own states are read, which the query goes on from', () => {
    const identity: Condition = { name: 'Identity', kind: 'patch', spec: 'text', control: 'identity' };
    expect(sizes(asking([patch, identity]), cellOf(1), 'test', 8)).toEqual(Array(100).fill(1));
    expect(sizes(asking([patch, identity]), cellOf(1), 'validation', 8).length).toBe(2);
  });

  test.each([
    { index: 2, of: 3 },
    { index: 2, of: 3, stage: 'validation' },
  ] as Shard[])('of a shard are those of the whole: %j', (shard) => {
    const study = { ...asking([patch]), cells: [cellOf(1), cellOf(2, 77)] };
    const isMember = membersOf(shard, study, 8);
    const stage = shard.stage ?? 'test';
    for (const cell of study.cells) {
      const { task, seed } = cell.split;
      for (const batch of batchesOf(study, cell, stage, 8)) {
        const own = batch.map(({ input: item }) => isMember({ stage, task: task.name, seed, item }));
        expect(new Set(own).size).toBe(1);
      }
    }
  });
});

test('a list in equal parts', () => {
  expect(evenly([1, 2, 3, 4, 5], 2)).toEqual([[1], [2, 3], [4, 5]]);
  expect(evenly([], 3)).toEqual([]);
});
