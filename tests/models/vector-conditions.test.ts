// Function and steering vectors as conditions of an experiment: what is patched where, against the same by hand.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { experimentOf } from '../../src/experiment/config.js';
import { memoryStore } from '../../src/experiment/memory-store.js';
import { planExperiment } from '../../src/experiment/plan.js';
import { runExperiment } from '../../src/experiment/run.js';
import type { Condition, Experiment, ResultLine } from '../../src/experiment/types.js';
import { type Context, loadModel, loadTask, type Model, queryPrompt, splitTask } from '../../src/index.js';
import { DELIMITER, vectorPrompts } from '../../src/tasks/prompts.js';
import type { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError } from '../unit/helpers.js';

const FUNCTION = { kind: 'patch', vector: 'function', spec: 'text' } as const;
const CONDITIONS: Condition[] = [
  { name: 'Task', kind: 'patch', spec: 'text' },
  { name: 'Function', ...FUNCTION },
  { name: 'Function of pictures', ...FUNCTION, spec: 'image', heads: 5, layers: [2, 5] },
  { name: 'All heads', ...FUNCTION, heads: 1000, layers: [3] },
  { name: 'Random', ...FUNCTION, control: 'random-vector' },
  { name: 'Steering', kind: 'patch', vector: 'steering', spec: 'text', layers: [3], strength: 2, steps: 'all' },
];
const make = (conditions: readonly Condition[]): Experiment =>
  experimentOf(
    {
      query: 'image',
      tasks: ['country-capital', 'food-color'],
      seeds: [1],
      validation: 6,
      prompts: 4,
      test: 3,
      readPosition: 'dummy-query',
      conditions,
      scores: ['probability'],
    },
    { name: 'test' },
  ).experiment;
const store = memoryStore();
let model: Model;
let context: Context;
let lines: ResultLine[];

beforeAll(async () => {
  model = await loadModel('demo', { device: 'cpu', threads: 1 });
  context = await model.createContext();
  await runExperiment(context, make(CONDITIONS), store);
  lines = [];
  for await (const line of store.lines()) lines.push(line);
}, 300_000);
afterAll(() => model.dispose());

const load = async (name: string) => (await store.loadVector(name)) as TaskVector;
const split = async (task: string) =>
  splitTask(await loadTask(task, { pictures: true }), 1, { pictures: true, validation: 6, test: 3 });

test('each kind of vector is written where its own validation answers are best, or where it is told to', async () => {
  const accuracy = (condition: string, layer: number) => {
    const of = (task: string) => lines.filter((l) => l.condition === condition && l.layer === layer && l.task === task);
    const share = (some: ResultLine[]) => some.filter(({ lenient }) => lenient).length / some.length;
    const [a, b] = ['country-capital', 'food-color'].map((task) =>
      share(of(task).filter(({ stage }) => stage === 'validation')),
    ) as [number, number];
    return a + b;
  };
  const best = (condition: string) => {
    const all = Array.from({ length: model.info.nLayers }, (_, layer) => accuracy(condition, layer));
    return all.indexOf(Math.max(...all));
  };
  const tested = (condition: string) => [
    ...new Set(lines.filter((l) => l.stage === 'test' && l.condition === condition).map((l) => l.layer)),
  ];
  expect(tested('Task')).toEqual([best('Task')]);
  expect(tested('Function')).toEqual([best('Function')]);
  expect(tested('Random')).toEqual(tested('Function'));
  expect(tested('Function of pictures')).toEqual([2, 5]);
  expect(tested('Steering')).toEqual([3]);
  const plan = await planExperiment(model, make(CONDITIONS));
  expect(plan.queries.reduce((n, { count }) => n + count, 0)).toBe(lines.length);
});

test('the function vector of all heads is what attention adds, summed over the layers', async () => {
  const prompts = vectorPrompts(await split('food-color'), 'text', { count: 4, readPosition: 'dummy-query' });
  const sum = new Float64Array(model.info.nEmbd);
  for (const { parts } of prompts) {
    const { states } = await context.run({ prompt: parts, capture: { hook: 'attn_out', positions: DELIMITER } });
    for (const layer of states.layers) {
      for (const [d, x] of states.at(layer).entries()) sum[d] = (sum[d] as number) + x / prompts.length;
    }
  }
  const vector = await load('food-color.text.function.heads1000.seed1');
  const state = vector.state(3);
  const size = Math.hypot(...sum);
  expect(size).toBeGreaterThan(1);
  expect(Math.hypot(...state.map((x, d) => x - (sum[d] as number)))).toBeLessThan(2e-3 * size);
  expect((await load('food-color.image.function.heads5.seed1')).info.origin).toMatchObject({ op: 'function' });
});

test('a steering vector is what the labels of examples change, added at every token', async () => {
  const steering = await load('country-capital.text.steering.seed1');
  const [task, shuffled] = [
    await load('country-capital.text.seed1'),
    await load('country-capital.text.shuffled-labels.seed1'),
  ];
  expect(steering.toArray()).toEqual(task.subtract(shuffled).toArray());
  const line = lines.find((l) => l.condition === 'Steering' && l.task === 'country-capital') as ResultLine;
  const item = (await split('country-capital')).test.find(({ input }) => input === line.item);
  const value = steering.state(3).map((x) => 2 * x);
  const edit = { layers: 3, positions: DELIMITER, op: 'add', value, steps: 'all' } as const;
  const row = { prompt: queryPrompt(item as never, 'image'), interventions: [edit] };
  const [{ text, interventions }] = await context.generate([row], { maxTokens: 16, stop: ['\n'] });
  expect(line.answer).toBe(text);
  expect(line.delta).toBeCloseTo(interventions[0]?.delta as number, 3);
  expect(interventions.length).toBeGreaterThan(1);
});

test.each<[Partial<Condition>, RegExp]>([
  [{ vector: 'function', spec: 'instruction' }, /spec text or image/],
  [{ vector: 'function', control: 'wrong-layer' }, /one direction at all layers/],
  [{ vector: 'steering', control: 'shuffled-labels' }, /difference to shuffled labels/],
  [{ vector: 'function', control: 'identity' }, /leave vector out/],
  [{ heads: 3 }, /only a function vector/],
  [{ vector: 'nonsense' as never }, /must be one of task, function, steering/],
])('refused: %j', async (wrong, message) => {
  await expectError(() => make([{ name: 'x', kind: 'patch', spec: 'text', ...wrong }]), 'CONFIG_INVALID', message);
});

test('refused: a layer that there is not, and a kind of vector whose layer nothing chooses', async () => {
  const plan = (condition: Condition) => planExperiment(model, make([{ ...CONDITIONS[0] } as Condition, condition]));
  await expectError(() => plan({ name: 'x', ...FUNCTION, layers: [99] }), 'LAYER_OUT_OF_RANGE', /99/);
  const control: Condition = { name: 'x', ...FUNCTION, control: 'random-vector' };
  await expectError(() => plan(control), 'CONFIG_INVALID', /of function vectors that has no control/);
});
