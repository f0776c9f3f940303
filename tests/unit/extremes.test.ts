// Lists that are longer than the arguments of a function can be.
import { expect, test } from '@jest/globals';
import type { Experiment, ResultLine } from '../../src/experiment/types.js';
import { blocksOf, type PreparedRow } from '../../src/model/pass.js';
import { arrange } from '../../src/report/experiment/lines.js';
import { workedExamples } from '../../src/report/experiment/worked-examples.js';
import { tableToText } from '../../src/report/tables.js';
import { largest, smallest } from '../../src/util/extremes.js';

const MANY = 300_000;

test('the largest and the smallest of many numbers', () => {
  const numbers = Array.from({ length: MANY }, (_, i) => (i * 7) % MANY);
  expect([largest(numbers), smallest(numbers)]).toEqual([MANY - 1, 0]);
  expect([largest([]), smallest([])]).toEqual([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]);
});

test('a pass with many edits ends at the block of the highest', () => {
  const interventions = Array.from({ length: MANY }, (_, i) => ({ layer: i % 5 }));
  expect(blocksOf([{ reads: [], topK: 0, interventions } as unknown as PreparedRow])).toBe(5);
});

test('a table of many lines', () => {
  const table = { title: '', columns: [{ name: 'a' }], rows: Array.from({ length: MANY }, () => ['1']), notes: [] };
  expect(tableToText(table).length).toBeGreaterThan(2 * MANY);
});

test('a report has the lines of a large experiment, at one layer and at several', () => {
  const conditions = ['one', 'several'].map((name) => ({ name, kind: 'patch', spec: 'text' }));
  const experiment = { conditions, tasks: ['country-capital'] } as unknown as Experiment;
  const lines = conditions.flatMap(({ name }) =>
    Array.from({ length: MANY / 2 }, (_, i) => {
      const layer = name === 'one' ? 3 : i % 2;
      return { stage: 'test', task: 'country-capital', seed: 2, condition: name, layer } as unknown as ResultLine;
    }),
  );
  const arranged = arrange(experiment, lines);
  expect(arranged.test).toHaveLength(MANY);
  expect(arranged.rows.map(({ name }) => name)).toEqual(['one', 'several, layer 0', 'several, layer 1']);
  const asked = arranged.test.map((line) => ({ ...line, prompt: [] as never, answer: 'Lima' }));
  expect(workedExamples(experiment, { ...arranged, test: asked })).toHaveLength(1);
});
