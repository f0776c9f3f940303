// Which items are asked about together: as many as are worth it, and the same whoever asks.
import { describe, expect, test } from '@jest/globals';
import { batchesOf, evenly } from '../../src/experiment/batches.js';
import { membersOf, type Shard } from '../../src/experiment/shard.js';
import type { Cell } from '../../src/experiment/study.js';
import type { Condition, Experiment } from '../../src/experiment/types.js';
import { conditionsToMake } from '../../src/experiment/vectors.js';
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

test('vectors of the test are made with the first validation query of their cell, and count in the size of a part', () => {
  const shuffled: Condition = { name: 'Shuffled', kind: 'patch', spec: 'text', control: 'shuffled-labels' };
  const wrong: Condition = { name: 'Wrong', kind: 'patch', spec: 'text', control: 'wrong-task' };
  const cells = [1, 2, 3].map((seed) => cellOf(seed));
  const study = { ...asking([patch, shuffled, wrong], { prompts: 30, layers: 'validation' }), cells };
  const parts = [1, 2, 3].map((index) => membersOf({ index, of: 3, stage: 'validation' }, study, 8));
  for (const [i, cell] of cells.entries()) {
    const made = parts.map((isMember) => conditionsToMake(study, cell, 'validation', isMember).length);
    expect(made).toEqual(parts.map((_, part) => (part === i ? 3 : 1)));
  }
  expect(conditionsToMake(study, cells[0] as Cell, 'test', () => true)).toEqual(study.experiment.conditions);
  // The vectors of a cell are 720 lines, its validation 240: one of two parts has two of them, and the other little more than one.
  const half = membersOf({ index: 2, of: 2, stage: 'validation' }, study, 8);
  const own = cells.map(
    ({ split: { seed, validation } }) =>
      validation.filter(({ input: item }) => half({ stage: 'validation', task: 't', seed, item })).length,
  );
  expect(own).toEqual([0, 15, 30]);
  const fixed = asking([patch, shuffled], { layers: [2] });
  expect(conditionsToMake({ ...fixed, cells }, cells[0] as Cell, 'validation', () => true)).toEqual([]);
});

test('a list in equal parts', () => {
  expect(evenly([1, 2, 3, 4, 5], 2)).toEqual([[1], [2, 3], [4, 5]]);
  expect(evenly([], 3)).toEqual([]);
});
