// What the planner promises: answers of passes planned together are those of one prompt, one layer at a time, and nothing is
// computed twice.
import { afterAll, beforeAll, expect, jest, test } from '@jest/globals';
import { experimentOf } from '../../src/experiment/config.js';
import { memoryStore } from '../../src/experiment/memory-store.js';
import { planExperiment } from '../../src/experiment/plan.js';
import { PRESETS } from '../../src/experiment/presets.js';
import { runExperiment } from '../../src/experiment/run.js';
import { strictMatch } from '../../src/experiment/scoring.js';
import type { Condition, Experiment, ResultLine, RunStore } from '../../src/experiment/types.js';
import { type Context, type Intervention, loadModel, loadTask, type Model, type PromptPart } from '../../src/index.js';
import type { DecodeJob } from '../../src/native/addon.js';
import { native } from '../../src/native/index.js';
import { DELIMITER, type Modality, PartList } from '../../src/tasks/template.js';
import { Random } from '../../src/util/random.js';
import type { TaskVector } from '../../src/vectors/task-vector.js';
import { FULL } from '../full.js';

const DRAWS = FULL ? 8 : 4;
const CPU = { device: 'cpu', threads: 1 } as const;
let model: Model;
let context: Context;
beforeAll(async () => {
  model = await loadModel('demo', CPU);
  // Keys and values in full precision: rounded ones carry the order of sums on, and a tie may fall otherwise.
  context = await model.createContext({ kvType: 'f32' });
});
afterAll(() => model.dispose());

/** Rows that llama.cpp decodes while `work` runs. */
async function decodedRows(work: () => Promise<unknown>): Promise<number> {
  const { addon } = native();
  const { contextDecode } = addon;
  let rows = 0;
  addon.contextDecode = (handle, job: DecodeJob) => {
    rows += job.outputs?.length ?? 0;
    return contextDecode(handle, job);
  };
  try {
    await work();
  } finally {
    addon.contextDecode = contextDecode;
  }
  return rows;
}

async function linesOf(store: RunStore): Promise<ResultLine[]> {
  const lines: ResultLine[] = [];
  for await (const line of store.lines()) lines.push(line);
  return lines;
}

/** A prompt as its record has it. */
function partsOf({ text, images = [] }: NonNullable<ResultLine['prompt']>): PromptPart[] {
  const parts = text
    .split('<image>')
    .flatMap((piece, i): PromptPart[] => [
      ...(i > 0 ? [{ image: images[i - 1] as string }] : []),
      ...(piece === '' ? [] : [piece]),
    ]);
  return [...parts, { mark: DELIMITER }];
}

/** An experiment that nobody thought of. */
function randomExperiment(random: Random): Experiment {
  const some = <T>(...list: T[]): T => list[random.integer(list.length)] as T;
  const query = some<Modality>('text', 'image');
  const conditions: Condition[] = [{ name: 'own', kind: 'patch', spec: some('text', 'image', 'instruction') }];
  for (let i = 0; i < 4; i++) {
    const name = `c${i}`;
    const other = some<Pick<Condition, 'query'>>({}, { query: some<Modality>('text', 'image') });
    const spec = some('text', 'image', 'instruction', 'ensemble') as NonNullable<Condition['spec']>;
    const control = some<Condition['control']>(undefined, 'random-vector', 'wrong-task', 'wrong-layer', 'identity');
    const plain = spec === 'ensemble' ? 'text' : spec;
    const kind = some('bare', 'prompt', 'patch', 'patch', 'patch');
    if (kind === 'bare') conditions.push({ name, kind, ...other, before: some('', 'Be brief.\n') });
    else if (kind === 'prompt') conditions.push({ name, kind, spec: plain, ...other });
    else conditions.push({ name, kind: 'patch', spec, ...other, ...(control && { control }) });
  }
  const shots = 1 + random.integer(3);
  const config = {
    tasks: random.sample(['country-capital', 'animal-young', 'food-color', 'food-flavor'], 2),
    seeds: [random.integer(100)],
    query,
    shots,
    validation: shots + 1 + random.integer(2),
    test: shots + 1 + random.integer(2),
    readPosition: some('last-example', 'dummy-query'),
    layers: some<Experiment['layers']>('validation', 'all', [random.integer(8)]),
    op: some('replace', 'add'),
    strength: some(1, 0.5, 2),
    maxTokens: 1 + random.integer(6),
    template: some<unknown>('paper', { example: '{input} -> {output}\n', query: '{input} ->' }),
    conditions,
  };
  try {
    return experimentOf(config, { name: 'random' }).experiment;
  } catch {
    return randomExperiment(random); // of two that do not go together, such as wrong-layer at all layers
  }
}

test('planned answers are those of one prompt, one layer at a time, in experiments drawn at random', async () => {
  const random = new Random(7, 'planner');
  let compared = 0;
  for (let draw = 0; draw < DRAWS; draw++) {
    const experiment = randomExperiment(random);
    const store = memoryStore();
    await runExperiment(context, experiment, store);
    const lines = await linesOf(store);
    const loaded = new Map<string, TaskVector>();
    const vectorNamed = async (name: string): Promise<TaskVector> => {
      const vector = loaded.get(name) ?? ((await store.loadVector(name)) as TaskVector);
      if (!loaded.has(name)) await requireOnePromptMean(vector);
      loaded.set(name, vector);
      return vector;
    };
    for (const line of random.sample(lines, Math.min(15, lines.length))) {
      const condition = experiment.conditions.find(({ name }) => name === line.condition) as Condition;
      const parts = line.prompt ? partsOf(line.prompt) : await bareParts(experiment, condition, line);
      if (parts === undefined) continue; // prompts of validation queries have no record
      const prompt = await model.prompt(parts);
      const interventions: Intervention[] = [];
      if (line.vector !== undefined) {
        const { op, strength } = experiment;
        const vector = await vectorNamed(line.vector);
        interventions.push(vector.at(line.layer as number, { op, strength }));
      }
      const maxTokens = line.stage === 'validation' ? 1 : experiment.maxTokens;
      const stop = line.stage === 'validation' ? [] : ['\n'];
      const [alone] = await context.generate([{ prompt, interventions }], { maxTokens, stop });
      expect({ ...line, prompt: undefined, answer: alone.text }).toEqual({ ...line, prompt: undefined });
      if (line.stage === 'test') {
        const cut = alone.finish === 'length';
        const strict = !cut && strictMatch(alone.text, line.expected);
        expect({ cut: line.cut, strict: line.strict }).toEqual({ cut: cut || undefined, strict });
      }
      if (line.delta !== undefined && line.vector !== undefined) {
        expect((alone.interventions[0]?.delta as number) / line.delta).toBeCloseTo(1, 3);
      }
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(7 * DRAWS);
}, 600_000);

/** The mean of the states of its prompts, each read in a pass of its own. */
async function requireOnePromptMean(vector: TaskVector): Promise<void> {
  const { origin } = vector.info;
  if (origin.op !== 'prompts') return;
  const sum = new Float64Array(vector.toArray().length);
  for (const record of origin.prompts) {
    const prompt = await model.prompt(partsOf(record));
    const [{ states }] = await context.pass([{ prompt, capture: { layers: 'all', positions: ['delimiter'] } }]);
    states?.data.forEach((x, i) => {
      sum[i] = (sum[i] as number) + x / origin.prompts.length;
    });
  }
  const [largest, apart] = vector
    .toArray()
    .reduce(
      ([max, diff], x, i) => [Math.max(max, Math.abs(x)), Math.max(diff, Math.abs(x - (sum[i] as number)))],
      [0, 0],
    );
  expect(apart).toBeLessThan(1e-3 * largest);
}

/** The bare query of a validation line, built without the engine. */
async function bareParts(
  { template, query, style }: Experiment,
  { kind, query: own }: Condition,
  { task, item }: ResultLine,
): Promise<PromptPart[] | undefined> {
  if (kind !== 'patch') return undefined;
  const { items } = await loadTask(task, { pictures: true, style });
  const list = new PartList();
  const found = items.find(({ input }) => input === item) as (typeof items)[number];
  list.fill(typeof template === 'object' ? template.query : 'Q:{input}\nA:', found, own ?? query);
  return list.marked();
}

test('what is planned is what is decoded: every picture is encoded once, every prefix decoded once in a batch', async () => {
  const experiment = experimentOf(
    {
      preset: 'main',
      tasks: ['food-color', 'food-flavor'],
      seeds: [1, 2],
      shots: 3,
      validation: 4,
      test: 4,
      maxTokens: 1, // which the prompts' own passes give
    },
    { name: 'counted' },
  ).experiment;
  await using fresh = await loadModel('demo', CPU);
  const seen: number[] = [];
  const plan = await planExperiment(fresh, experiment, {
    onProgress: ({ done, total }) => void seen.push(done / total),
  });
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect([seen[0], Math.ceil((seen.at(-1) as number) * 10)]).toEqual([0, 10]);
  expect(fresh.imageEncodes).toBe(0);
  const own = await fresh.createContext();
  const calls = [jest.spyOn(own, 'pass'), jest.spyOn(own, 'generate')];
  const rows = await decodedRows(() => runExperiment(own, experiment));
  expect(calls.reduce((sum, { mock }) => sum + mock.calls.length, 0)).toBe(plan.passes);
  expect(fresh.imageEncodes).toBe(plan.pictures);
  // Where rows of a batch are more than are worth computing together, their common beginning is decoded again.
  expect(rows / plan.tokens).toBeGreaterThanOrEqual(1);
  expect(rows / plan.tokens).toBeLessThan(1.03);
});

test.each(Object.keys(PRESETS).filter((name) => !['compute', 'template', 'vqa'].includes(name)))(
  'the preset %s can run on the shipped model',
  async (preset) => {
    const { tasks = ['country-capital', 'food-color'], conditions } = PRESETS[preset]?.config ?? {};
    const foreign = conditions?.some((condition) => condition.foreign) ? { vectorModel: 'demo' } : {};
    const small = { preset, tasks, seeds: [1], validation: 6, test: 6, ...foreign };
    const { experiment } = experimentOf(small, { name: preset });
    const plan = await planExperiment(model, experiment, { foreign: experiment.vectorModel ? model : undefined });
    const planned = new Set(plan.queries.map(({ condition }) => condition));
    expect([...planned].sort()).toEqual(conditions?.map(({ name }) => name).sort());
  },
);
