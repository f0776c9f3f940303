// The engine of experiments on the shipped models: what it answers, that it can be interrupted anywhere, what it refuses.
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { batchesOf } from '../../src/experiment/batches.js';
import { experimentOf } from '../../src/experiment/config.js';
import { memoryStore } from '../../src/experiment/memory-store.js';
import { planExperiment } from '../../src/experiment/plan.js';
import { parallelism, type RunOptions, runExperiment } from '../../src/experiment/run.js';
import { scoreOptions } from '../../src/experiment/score-options.js';
import { type Cell, prepareStudy } from '../../src/experiment/study.js';
import {
  type Condition,
  type Experiment,
  type ExperimentProgress,
  keyOf,
  type ResultLine,
  type RunStore,
} from '../../src/experiment/types.js';
import {
  type Context,
  loadModel,
  loadTask,
  type Model,
  type PromptPart,
  queryPrompt,
  splitTask,
  type TaskItem,
} from '../../src/index.js';
import { answerTokens } from '../../src/tasks/answer-tokens.js';
import { checkTask } from '../../src/tasks/check.js';
import { promptFormat } from '../../src/tasks/model-format.js';
import { XpatchError } from '../../src/util/errors.js';
import { Random } from '../../src/util/random.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const folder = await temporaryFolder();

const own: Condition = { name: 'Text Patch', kind: 'patch', spec: 'text' };
const BARE: Condition = { name: 'No Context', kind: 'bare' };
const CONDITIONS: Condition[] = [
  { name: 'Random', kind: 'majority' },
  BARE,
  { name: 'Text Prompt', kind: 'prompt', spec: 'text' },
  { name: 'Image Prompt', kind: 'prompt', spec: 'image' },
  { name: 'Instruction Prompt', kind: 'prompt', spec: 'instruction' },
  own,
  { name: 'Instruction Patch', kind: 'patch', spec: 'instruction' },
  { name: 'Ensemble Patch', kind: 'patch', spec: 'ensemble', prompts: 2 },
  { name: 'Random Vector', kind: 'patch', spec: 'text', control: 'random-vector' },
  { name: 'Wrong Task', kind: 'patch', spec: 'text', control: 'wrong-task' },
  { name: 'Shuffled', kind: 'patch', spec: 'text', control: 'shuffled-labels' },
  { name: 'Wrong Layer', kind: 'patch', spec: 'text', control: 'wrong-layer' },
  { name: 'Identity', kind: 'patch', spec: 'text', control: 'identity' },
  { name: 'Text Query', kind: 'patch', spec: 'text', query: 'text' },
];
const make = (config: Partial<Experiment>): Experiment =>
  experimentOf(
    {
      query: 'image',
      tasks: ['food-color', 'food-flavor'],
      seeds: [1],
      validation: 6,
      prompts: 6,
      test: 8,
      conditions: CONDITIONS,
      scores: ['probability', 'likelihood'],
      ...config,
    },
    { name: 'test' },
  ).experiment;
const experiment = make({});

async function linesOf(run: RunStore): Promise<ResultLine[]> {
  const all: ResultLine[] = [];
  for await (const line of run.lines()) all.push(line);
  return all;
}
const byKey = (lines: readonly ResultLine[]) => new Map(lines.map((line) => [keyOf(line), line]));

let model: Model;
let context: Context;
let store: RunStore;
let lines: ResultLine[];
let layer: number;
const progress: ExperimentProgress[] = [];

beforeAll(async () => {
  // The CPU: there the same answers come out to the last digit.
  model = await loadModel('demo', { device: 'cpu', threads: 1 });
  context = await model.createContext();
  store = memoryStore();
  const result = await runExperiment(context, experiment, store, { onProgress: (p) => progress.push(p) });
  layer = result.layers[0] as number;
  lines = await linesOf(store);
}, 300_000);
afterAll(() => model.dispose());

const answered = (condition: string) => lines.filter((l) => l.stage === 'test' && l.condition === condition);
const itemOf = async ({ task, item }: ResultLine): Promise<TaskItem> => {
  const { items } = await loadTask(task, { pictures: true, style: experiment.style });
  return items.find(({ input }) => input === item) as TaskItem;
};

test('every condition answers the same queries once, as many as planned', async () => {
  const plan = await planExperiment(model, experiment);
  expect(new Set(lines.map(keyOf)).size).toBe(lines.length);
  for (const { stage, condition, count } of plan.queries) {
    const found = lines.filter((l) => l.stage === stage && l.condition === condition);
    expect({ stage, condition, count: found.length }).toEqual({ stage, condition, count });
  }
  expect(plan.queries.reduce((n, { count }) => n + count, 0)).toBe(lines.length);
  const names = lines.flatMap(({ vector }) => vector ?? []);
  expect(new Set(names).size).toBeLessThanOrEqual(plan.vectors);
  for (const name of new Set(names)) expect(await store.loadVector(name)).toBeDefined();
  const validated = new Set(lines.filter((l) => l.stage === 'validation').map(({ condition }) => condition));
  const uncontrolled = CONDITIONS.filter(({ kind, control }) => kind === 'patch' && !control);
  expect([...validated].sort()).toEqual(uncontrolled.map(({ name }) => name).sort());
  expect(plan.longest).toBeLessThan(context.options.nCtx);
});

test('the layer is the best one on validation items', () => {
  const patches = lines.filter((l) => l.stage === 'validation' && l.layer !== undefined);
  const accuracy = Array.from({ length: model.info.nLayers }, (_, at) => {
    const here = patches.filter((line) => line.layer === at);
    return here.filter(({ lenient }) => lenient).length / here.length;
  });
  expect(layer).toBe(accuracy.indexOf(Math.max(...accuracy)));
  for (const line of lines) if (line.stage === 'test' && line.layer !== undefined) expect(line.layer).toBe(layer);
});

test('planned together is answered as one prompt, one layer at a time', async () => {
  const random = new Random(1, 'sample');
  const patched = lines.filter((l) => l.stage === 'test' && l.vector !== undefined && l.prompt?.images?.length === 1);
  let same = 0;
  const sample = random.sample(patched, 24);
  for (const line of sample) {
    const prompt = await model.prompt(queryPrompt(await itemOf(line), 'image'));
    const vector = await store.loadVector(line.vector as string);
    const interventions = [vector?.at(line.layer as number)].filter((edit) => edit !== undefined);
    const [alone] = await context.generate([{ prompt, interventions, topK: 2 }], { maxTokens: 16, stop: ['\n'] });
    const [first, second] = alone.top ?? [];
    // Rows in one batch round differently; only a tie may fall otherwise.
    const tie = Math.abs((first?.logit as number) - (second?.logit as number)) < 0.02;
    if (alone.text === line.answer) same++;
    else if (!tie)
      expect({ item: line.item, lenient: line.firstToken }).toEqual({ item: line.item, lenient: first?.text });
    const apart = (alone.interventions[0]?.delta as number) / (line.delta as number) - 1;
    expect(Math.abs(apart)).toBeLessThan(2e-3); // company in a batch changes states: docs/evaluation.md
  }
  expect(same).toBeGreaterThanOrEqual(sample.length - 1);
});

test('validation: all layers in one pass say what each says alone', async () => {
  const swept = lines.filter(
    (l) => l.stage === 'validation' && l.condition === 'Text Patch' && l.task === 'food-color',
  );
  for (const line of new Random(2, 'sample').sample(swept, 12)) {
    const prompt = await model.prompt(queryPrompt(await itemOf(line), 'image'));
    const vector = await store.loadVector('food-color.text.seed1');
    const edit = vector?.at(line.layer as number);
    const [alone] = await context.pass([{ prompt, interventions: edit ? [edit] : [], topK: 1 }]);
    expect(line.firstToken).toBe(alone.top?.[0]?.text);
  }
});

test("a query's own state written back changes nothing", () => {
  const bare = answered('No Context');
  const identity = answered('Identity');
  expect(identity.map(({ answer }) => answer)).toEqual(bare.map(({ answer }) => answer));
  for (const [i, { probability, delta }] of identity.entries()) {
    expect(probability as number).toBeCloseTo(bare[i]?.probability as number, 3);
    expect(delta as number).toBeLessThan(0.2); // a thousandth of a state's length, the rounding to 16 bits
  }
});

test('probability, rank and likelihood are those of passes over the whole vocabulary', async () => {
  const [line] = answered('Text Patch').filter(({ task }) => task === 'food-flavor');
  if (!line) throw new Error('no line');
  const item = await itemOf(line);
  const parts = queryPrompt(item, 'image');
  const vector = await store.loadVector('food-flavor.text.seed1');
  const interventions = [vector?.at(layer, { positions: 'delimiter' })].filter((edit) => edit !== undefined);
  const { items } = await loadTask('food-flavor');
  const scores = new Map<string, number>();
  for (const answer of new Set(items.map(({ output }) => output))) {
    const prompt = await model.prompt([...parts, answer]);
    const start = prompt.position('delimiter');
    const [{ logits }] = await context.pass([{ prompt, interventions, logits: 'all' }]);
    let sum = 0;
    for (let at = start; at < prompt.length - 1; at++) {
      const row = [...(logits?.data.slice(at * model.info.nVocab, (at + 1) * model.info.nVocab) ?? [])];
      const own = row[prompt.tokens[at + 1] as number] as number;
      const total = Math.log(row.reduce((s, x) => s + Math.exp(x), 0));
      sum += own - total;
      if (at === start && answer === item.output) {
        expect(line.probability as number).toBeCloseTo(Math.exp(own - total), 3);
        expect(line.rank).toBe(row.filter((x) => x > own).length);
      }
    }
    scores.set(answer, sum);
  }
  const own = scores.get(item.output) as number;
  expect(line.logLikelihood as number).toBeCloseTo(own, 1);
  expect(line.answerRank).toBe([...scores.values()].filter((score) => score > own).length);
});

test('an answer is ranked among the choices of its item', async () => {
  const items = (await loadTask('country-capital')).items.slice(0, 16);
  const all = items.map(({ output }) => output);
  const choicesOf = ({ output }: TaskItem, i: number) => [
    ...all.filter((one) => one !== output).slice(i % 5, (i % 5) + 3),
    output,
  ];
  const path = join(folder, 'choices.json');
  const content = items.map((item, i) => ({ input: item.input, output: item.output, choices: choicesOf(item, i) }));
  await writeFile(path, JSON.stringify(content));
  const inner = memoryStore();
  const conditions = [{ name: 'Text Prompt', kind: 'prompt', spec: 'text' }] as const;
  await runExperiment(context, make({ query: 'text', tasks: [path], conditions }), inner);
  const found = (await linesOf(inner)).filter(({ stage }) => stage === 'test');
  expect(found.length).toBeGreaterThan(4);
  for (const line of found) {
    const options = content.find(({ input }) => input === line.item)?.choices as string[];
    const [scores = []] = await scoreOptions(context, [{ query: { prompt: line.prompt?.text as string }, options }]);
    const own = scores.find(({ option }) => option === line.expected)?.logLikelihood as number;
    expect(line.logLikelihood as number).toBeCloseTo(own, 1);
    const ahead = scores.filter(({ logLikelihood }) => logLikelihood > own).length;
    expect(Math.abs((line.answerRank as number) - ahead)).toBeLessThanOrEqual(ahead > 0 ? 1 : 0); // ties
  }
});

test('of several right answers the best one counts, for each score by itself', async () => {
  const items = (await loadTask('country-capital')).items.slice(0, 16);
  const several = items.map(({ input, output }, i) => {
    const [other] = (items[(i + 7) % items.length] as TaskItem).output.split(' ');
    return { input, output: [`${other} or so`, output, `${output} indeed`].slice(0, 1 + (i % 3)) };
  });
  const path = join(folder, 'several.json');
  await writeFile(path, JSON.stringify(several));
  const config = {
    query: 'text',
    tasks: [path],
    conditions: [{ name: 'Text Prompt', kind: 'prompt', spec: 'text' }],
  } as const;
  const inner = memoryStore();
  await runExperiment(context, make(config), inner);
  const { split } = (await prepareStudy(model, make(config))).cells[0] as Cell;
  const known = [...new Set(split.task.items.flatMap(({ output, also = [] }) => [output, ...also]))];
  const found = (await linesOf(inner)).filter(({ stage }) => stage === 'test');
  let notFirst = 0;
  for (const line of found.slice(0, 4)) {
    const query = line.prompt?.text as string;
    const logProbabilities = async (answer: string) => {
      const [bare, prompt] = [await model.prompt(query), await model.prompt(query + answer)];
      const { logits } = await context.run({ prompt, logits: 'all' });
      return Array.from({ length: prompt.length - bare.length }, (_, i) => {
        const at = (bare.length - 1 + i) * model.info.nVocab;
        const row = logits.data.subarray(at, at + model.info.nVocab);
        const own = row[prompt.tokens[bare.length + i] as number] as number;
        const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
        return { log: own - total, rank: row.filter((x) => x > own).length };
      });
    };
    const right = [line.expected, ...(line.also ?? [])];
    const first = [];
    for (const answer of right) first.push((await logProbabilities(answer))[0]);
    const best = first.reduce((a, b) => ((b?.log as number) > (a?.log as number) ? b : a));
    if (best !== first[0]) notFirst++;
    expect(line.probability as number).toBeCloseTo(Math.exp(best?.log as number), 3);
    expect(Math.abs((line.rank as number) - (best?.rank as number))).toBeLessThanOrEqual(
      1 + 0.02 * (best?.rank as number),
    );
    const whole = new Map<string, number>();
    for (const answer of known) {
      whole.set(
        answer,
        (await logProbabilities(answer)).reduce((sum, { log }) => sum + log, 0),
      );
    }
    const likeliest = Math.max(...right.map((answer) => whole.get(answer) as number));
    expect(line.logLikelihood as number).toBeCloseTo(likeliest, 1);
    const ahead = [...whole.values()].filter((score) => score > likeliest).length;
    expect(Math.abs((line.answerRank as number) - ahead)).toBeLessThanOrEqual(1); // ties
  }
  expect(notFirst).toBeGreaterThan(0);
});

test('controls patch what they say', async () => {
  const vector = async (name: string) => {
    const found = await store.loadVector(name);
    if (!found) throw new Error(name);
    return found;
  };
  expect(answered('Wrong Task').find(({ task }) => task === 'food-color')?.vector).toBe('food-flavor.text.seed1');
  const text = await vector('food-color.text.seed1');
  const rolled = await vector('food-color.text.wrong-layer.seed1');
  const half = model.info.nLayers / 2;
  expect(rolled.state(0)).toEqual(text.state(half));
  expect(rolled.state(half)).toEqual(text.state(0));
  const random = await vector('food-color.text.random-vector.seed1');
  for (const [i, norm] of random.norms().entries()) expect(norm).toBeCloseTo(text.norms()[i] as number, 2);
  expect(Math.abs(random.cosine(text)[0] as number)).toBeLessThan(0.5);
  const few = await vector('food-color.text.prompts2.seed1');
  const instruction = await vector('food-color.instruction.seed1');
  const ensemble = await vector('food-color.ensemble.prompts2.seed1');
  const at = ensemble.state(3);
  for (const [i, x] of at.entries()) {
    expect(x).toBeCloseTo(((few.state(3)[i] as number) + (instruction.state(3)[i] as number)) / 2, 4);
  }
  const { origin } = (await vector('food-color.text.shuffled-labels.seed1')).info;
  const plain = text.info.origin;
  if (origin.op !== 'prompts' || plain.op !== 'prompts') throw new Error(origin.op);
  const questions = (prompt: string) => prompt.split('\n').filter((row) => row.startsWith('Q:'));
  for (const [i, { text: shuffled }] of origin.prompts.entries()) {
    expect(questions(shuffled)).toEqual(questions(plain.prompts[i]?.text as string));
  }
  expect(origin.prompts.map((p) => p.text)).not.toEqual(plain.prompts.map((p) => p.text));
});

test('progress rises to its end', () => {
  expect(progress.at(-1)?.done).toBe(progress.at(-1)?.total);
  for (const [i, now] of progress.entries()) {
    const before = progress[i - 1];
    expect(now.done).toBeGreaterThanOrEqual(before?.done ?? 0);
    expect(now.worked).toBeGreaterThanOrEqual((before?.worked ?? 0) - 1e-9);
    expect(now.worked + now.left).toBeCloseTo(1, 9);
    expect(now.fresh).toBe(now.done);
  }
  expect(progress.at(-1)?.left).toBeCloseTo(0, 9);
});

/** Dies in one of the next appends, with a part of its lines kept, or while a vector is saved. */
function mortal(inner: RunStore, random: Random): RunStore {
  let left = random.integer(4);
  const dies = () => left-- === 0;
  const live = () => {
    if (left < 0) throw new Error('killed'); // the dead write nothing
  };
  return {
    get known() {
      return inner.known;
    },
    lines: () => inner.lines(),
    loadVector: (name) => inner.loadVector(name),
    load: (name, open) => inner.load(name, open),
    append: async (some) => {
      live();
      if (!dies()) return inner.append(some);
      await inner.append(some.slice(0, random.integer(some.length + 1)));
      throw new Error('killed');
    },
    saveVector: async (name, vector) => {
      live();
      if (dies()) throw new Error('killed');
      await inner.saveVector(name, vector);
    },
  };
}

describe('a run that is killed', () => {
  test('at any append, as often as it happens, ends with the lines of an undisturbed one', async () => {
    const random = new Random(3, 'kills');
    const inner = memoryStore();
    let deaths = 0;
    for (;;) {
      try {
        const { layers } = await runExperiment(context, experiment, mortal(inner, random));
        expect(layers).toEqual([layer]);
        break;
      } catch (error) {
        expect((error as Error).message).toBe('killed');
        deaths++;
      }
    }
    expect(deaths).toBeGreaterThan(3); // a fast machine appends less often
    const found = await linesOf(inner);
    expect(found).toHaveLength(lines.length);
    expect(byKey(found)).toEqual(byKey(lines));
  }, 600_000);

  test('by its signal keeps the answers in hand, and the context', async () => {
    const inner = memoryStore();
    const controller = new AbortController();
    const run = (options: RunOptions) => runExperiment(context, experiment, inner, options);
    await expectError(
      () =>
        run({
          signal: controller.signal,
          onProgress: ({ stage, done }) => stage === 'validation' && done > 30 && controller.abort(),
        }),
      'ABORTED',
      /Its answers are kept/,
    );
    expect(inner.known.size).toBeGreaterThan(0);
    for (const line of await linesOf(inner)) expect(byKey(lines).get(keyOf(line))).toEqual(line);
    await expectError(() => run({ signal: AbortSignal.abort() }), 'ABORTED', /interrupted/);
  });

  test('by a store that refuses lines for a moment hands these over again, with those behind them', async () => {
    const inner = memoryStore();
    const refused: ResultLine[] = [];
    let appends = 0;
    const flaky: RunStore = {
      ...inner,
      append: async (some) => {
        if (++appends !== 2) return inner.append(some);
        refused.push(...some);
        throw new XpatchError('FILE_WRITE', 'The disk is full.');
      },
    };
    // As if every batch took long, so that it is written down at once.
    let now = 0;
    const spy = jest.spyOn(performance, 'now').mockImplementation(() => (now += 1000));
    await expectError(() => runExperiment(context, experiment, flaky), 'FILE_WRITE', /disk is full/);
    spy.mockRestore();
    expect(refused.length).toBeGreaterThan(0);
    const kept = await linesOf(inner);
    expect(kept).toEqual(lines.slice(0, kept.length));
    for (const line of refused) expect(inner.known).toContain(keyOf(line));
    await runExperiment(context, experiment, flaky);
    expect(await linesOf(inner)).toEqual(lines);
  }, 300_000);

  test('a complete run does nothing more', async () => {
    const before = model.imageEncodes;
    const frozen: RunStore = {
      known: store.known,
      lines: () => store.lines(),
      loadVector: (name) => store.loadVector(name),
      load: (name, open) => store.load(name, open),
      append: () => Promise.reject(new Error('appended')),
      saveVector: () => Promise.reject(new Error('saved')),
    };
    const seen: ExperimentProgress[] = [];
    const { work } = await planExperiment(model, experiment);
    const how: RunOptions = { work, onProgress: (p) => seen.push(p) };
    expect(await runExperiment(context, experiment, frozen, how)).toEqual({ layers: [layer] });
    expect(seen.at(-1)?.done).toBe(seen.at(-1)?.total);
    // Nothing of it is this process's work, so it does not count as its speed.
    for (const { fresh, worked } of seen) expect([fresh, worked]).toEqual([0, 0]);
    expect(seen.at(-1)?.left).toBeCloseTo(0, 9);
    expect(model.imageEncodes).toBe(before);
  });
});

describe('several items at a time', () => {
  test('are as many as there are cores in a small model', async () => {
    expect(parallelism(model)).toBe(Math.min(availableParallelism(), 8));
    expect(parallelism(model, 3)).toBe(3);
    const large = { options: model.options, info: { ...model.info, sizeBytes: 64e6 } } as Model;
    expect(parallelism(large, 3)).toBe(1);
    for (const parallel of [0, 1.5, Number.NaN, 513]) {
      await expectError(() => runExperiment(context, experiment, store, { parallel }), 'INVALID_ARGUMENT', /parallel/);
    }
  });

  test('give the lines of one at a time, in their order, and progress that never goes back', async () => {
    const inner = memoryStore();
    const seen: number[] = [];
    const how: RunOptions = { parallel: 3, onProgress: ({ done }) => seen.push(done) };
    expect(await runExperiment(context, experiment, inner, how)).toEqual({ layers: [layer] });
    expect(await linesOf(inner)).toEqual(lines);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).toBe(progress.at(-1)?.total);
  }, 300_000);

  test('that is killed ends with them too', async () => {
    const random = new Random(5, 'kills');
    const inner = memoryStore();
    for (let deaths = 0; ; deaths++) {
      const run = runExperiment(context, experiment, mortal(inner, random), { parallel: 3 });
      const error = await run.then(
        () => undefined,
        (reason: Error) => reason,
      );
      if (error) expect(error.message).toBe('killed');
      else {
        expect(deaths).toBeGreaterThan(3);
        break;
      }
    }
    expect(byKey(await linesOf(inner))).toEqual(byKey(lines));
    expect(inner.known.size).toBe(lines.length);
  }, 600_000);

  test('in one batch are answered alike in shards, in other lanes and after kills', async () => {
    const conditions: Condition[] = [{ name: 'No Context', kind: 'bare' }, own];
    const few = make({ tasks: ['country-capital'], query: 'text', validation: 8, test: 80, conditions, scores: [] });
    const whole = memoryStore();
    const passes = jest.spyOn(context, 'generate');
    await runExperiment(context, few, whole);
    expect(passes.mock.calls.map(([rows]) => rows.length)).toEqual([80, 80]);
    passes.mockRestore();
    const expected = byKey(await linesOf(whole));
    expect(expected.size).toBe(8 * 8 + 2 * 80);

    const found = new Map<string, ResultLine>();
    for (const index of [1, 2]) {
      const shard = memoryStore();
      await runExperiment(context, few, shard, { shard: { index, of: 2 }, parallel: index });
      for (const line of await linesOf(shard)) found.set(keyOf(line), line);
    }
    expect(found).toEqual(expected);

    // Of every batch a part is known, which is asked about again with the others.
    const torn = memoryStore();
    await torn.append([...expected.values()].filter((_, i) => i % 3 === 0));
    await runExperiment(context, few, torn, { parallel: 2 });
    expect(byKey(await linesOf(torn))).toEqual(expected);
  }, 300_000);

  test('keep what others have answered when one cannot be', async () => {
    const inner = memoryStore();
    const study = await prepareStudy(model, experiment);
    const [[first], second] = batchesOf(study, study.cells[0] as Cell, 'validation', model.info.nLayers) as [
      TaskItem[],
      TaskItem[],
    ];
    const prompt = model.prompt.bind(model);
    const spy = jest.spyOn(model, 'prompt').mockImplementation((parts, options) => {
      if (isOnly(parts as readonly PromptPart[], first as TaskItem)) throw new Error('vanished');
      return prompt(parts, options);
    });
    await expect(runExperiment(context, experiment, inner, { parallel: 2 })).rejects.toThrow('vanished');
    spy.mockRestore();
    const found = await linesOf(inner);
    expect(new Set(found.map(({ item }) => item))).toEqual(new Set(second.map(({ input }) => input)));
    for (const line of found) expect(byKey(lines).get(keyOf(line))).toEqual(line);
  });

  /** Whether a prompt asks about an item and shows nothing else. */
  function isOnly(parts: readonly PromptPart[], { image }: TaskItem): boolean {
    const pictures = parts.filter((part) => typeof part !== 'string' && 'image' in part);
    return pictures.length === 1 && isDeepStrictEqual(pictures, [{ image }]);
  }
});

test('little memory splits the work and changes no answer', async () => {
  const small = await model.createContext({ nCtx: 320, nUbatch: 64 });
  const inner = memoryStore();
  await runExperiment(small, make({ scores: ['probability'] }), inner, { memory: 1 });
  const found = byKey(await linesOf(inner));
  await small.dispose();
  expect(found.size).toBe(lines.length);
  // Rows in one batch round differently, so ties may fall otherwise.
  const different = lines.filter((line) => found.get(keyOf(line))?.firstToken !== line.firstToken);
  expect(different.length).toBeLessThanOrEqual(lines.length / 100);
});

test('vectors of the language model go into the vision-language model', async () => {
  const base = await loadModel('demo-base', { device: 'cpu', threads: 1 });
  const foreign = await base.createContext();
  const inner = memoryStore();
  const conditions: Condition[] = [own, { ...own, name: 'LLM', foreign: true }];
  const borrowing = make({ conditions, vectorModel: 'demo-base', test: 3, scores: [] });
  await expectError(() => runExperiment(context, borrowing, inner), 'CONFIG_INVALID', /vectorModel/);
  await runExperiment(context, borrowing, inner, { foreign, parallel: 2 });
  const vector = await inner.loadVector('food-color.text.foreign.seed1');
  expect(vector?.info.model.hash).toBe(base.identity.hash);
  expect((await linesOf(inner)).some((l) => l.stage === 'validation' && l.condition === 'LLM')).toBe(false);
  const tiny = await loadModel('tests/fixtures/models/llama.gguf', { device: 'cpu' });
  await expectError(() => planExperiment(model, borrowing, { foreign: tiny }), 'VECTOR_MISMATCH', /equal shape/);
  await Promise.all([base.dispose(), tiny.dispose()]);
});

test('questions of a rival task, and instructions before the query', async () => {
  const inner = memoryStore();
  const conditions: Condition[] = [
    { name: 'Asked', kind: 'bare', question: '{rival}', before: '{instruction}\n' },
    { ...own, name: 'Asked, patched', question: '{rival}' },
  ];
  await runExperiment(context, make({ conditions, layers: [1, 2], test: 5, scores: [] }), inner);
  const found = await linesOf(inner);
  expect(found.map(({ stage }) => stage)).not.toContain('validation');
  expect(found).toHaveLength(2 * 5 * 3);
  const color = found.find((l) => l.task === 'food-color' && l.condition === 'Asked');
  expect(color?.prompt?.text).toBe('The color of the food:\nQ:<image>What is the flavor descriptor of the food?\nA:');
  const { items } = await loadTask('food-flavor');
  for (const line of found.filter((l) => l.task === 'food-color' && l.rival !== undefined)) {
    expect(line.rival).toBe(items.find(({ input }) => input === line.item)?.output);
  }
});

describe('what cannot run is refused before any pass', () => {
  const refused = (
    config: Partial<Experiment>,
    code: Parameters<typeof expectError>[1],
    message: RegExp,
    on = (): Model => model,
  ) => expectError(() => planExperiment(on(), { ...experiment, ...config }), code, message);

  test('by its conditions', async () => {
    const only = (condition: Condition) => ({ conditions: [condition] });
    await refused(only({ name: 'x', kind: 'patch' }), 'CONFIG_INVALID', /spec: is missing/);
    await refused(
      only({ name: 'x', kind: 'prompt', spec: 'ensemble' }),
      'CONFIG_INVALID',
      /spec: must be one of text, image, instruction/,
    );
    await refused({ conditions: [own, own] }, 'CONFIG_INVALID', /is also the name of conditions\[0\]/);
    await refused({ tasks: ['food-color'] }, 'CONFIG_INVALID', /two tasks/);
    await refused(only({ ...own, foreign: true }), 'CONFIG_INVALID', /without control|another model/);
    await refused(only({ ...own, control: 'random-vector' }), 'CONFIG_INVALID', /name the layers/);
    await refused(only({ ...own, prompts: 7 }), 'CONFIG_INVALID', /prompts: must be at most validation \(6\), not 7/);
    await refused({ layers: [99] }, 'LAYER_OUT_OF_RANGE', /99/);
    await refused({ template: 'chat' }, 'CONFIG_INVALID', /no chat template/);
  });

  test('by its tasks', async () => {
    await refused({ tasks: ['food-color', 'food-smell'] }, 'TASK_INVALID', /food-smell/);
    await refused({ validation: 500 }, 'TASK_INVALID', /500/);
    await refused({ test: 4 }, 'CONFIG_INVALID', /test: must be greater than shots \(5\)/);
    const { items } = await loadTask('food-color', { pictures: true });
    const few = { validation: items.filter(({ image }) => image !== undefined).length - 4 };
    await refused(few, 'TASK_INVALID', /4 test items, too few to draw 5 shots/);
  });

  test('by errors that `data check` finds in its splits, in the same words', async () => {
    const items = Array.from({ length: 40 }, (_, i) => ({ input: `thing ${i}`, output: `${i % 7} of all` }));
    const write = async (more: object[]) => {
      const file = join(folder, 'things.json');
      await writeFile(file, JSON.stringify([...items, ...more]));
      return { tasks: ['food-color', file], query: 'text' as const, conditions: [own] };
    };
    const contradiction = await write([{ input: 'thing 3', output: 'another' }]);
    const { findings } = await checkTask(contradiction.tasks[1] as string);
    const { message } = findings.find(({ kind }) => kind === 'contradiction') as { message: string };
    await expectError(
      () => planExperiment(model, { ...experiment, ...contradiction }),
      'TASK_INVALID',
      new RegExp(`^Task things: contradiction: ${message}\\. Fix /.*things\\.json .*, or leave out the task\\.$`),
    );
    const twins = await write([{ input: 'Thing 3', output: '3 of all' }]);
    const { file, ...task } = await loadTask(twins.tasks[1] as string);
    const leaks = (seed: number) => {
      const { validation, test } = splitTask({ file, ...task }, seed, { validation: 6, test: 8 });
      const has = (some: readonly TaskItem[]) => some.filter(({ input }) => /^thing 3$/i.test(input)).length;
      return has(validation) === 1 && has(test) === 1;
    };
    const seeds = Array.from({ length: 1000 }, (_, seed) => seed);
    const [bad, good] = [seeds.find(leaks), seeds.find((seed) => !leaks(seed))] as [number, number];
    await refused({ ...twins, seeds: [bad] }, 'TASK_INVALID', new RegExp(`leak: .* under seed ${bad}\\. Fix`));
    expect((await planExperiment(model, { ...experiment, ...twins, seeds: [good] })).vectors).toBeGreaterThan(0);
  });

  test('by the model and its memory', async () => {
    const base = await loadModel('demo-base', { device: 'cpu' });
    await refused({}, 'IMAGE_UNSUPPORTED', /no picture encoder/, () => base);
    await base.dispose();
    await expectError(() => planExperiment(model, experiment, { nCtx: 100 }), 'CONTEXT_OVERFLOW', /longest prompt/);
  });
});

test('a run of nothing but the most frequent answer has a progress', async () => {
  const only = make({ tasks: ['food-color'], conditions: CONDITIONS.filter(({ kind }) => kind === 'majority') });
  const seen: ExperimentProgress[] = [];
  const { work } = await planExperiment(model, only);
  await runExperiment(context, only, memoryStore(), { work, onProgress: (p) => seen.push(p) });
  expect(seen.at(-1)).toMatchObject({ worked: expect.closeTo(1, 9), left: expect.closeTo(0, 9) });
});

test('a plan holds the answers whose likelihood is asked for', async () => {
  const longest = (config: Partial<Experiment>) =>
    planExperiment(model, make({ tasks: ['animal-latin'], maxTokens: 1, conditions: [BARE], ...config })).then(
      (plan) => plan.longest,
    );
  const likelihood = await longest({ scores: ['likelihood'] });
  expect(likelihood).toBeGreaterThan((await longest({ scores: [] })) + 1);
  await using tight = await model.createContext({ nCtx: likelihood });
  const wanted = make({ tasks: ['animal-latin'], maxTokens: 1, conditions: [BARE], scores: ['likelihood'], test: 2 });
  await runExperiment(tight, wanted);
});

test("an answer's tokens are those that follow the prompt", async () => {
  const { items, ...rest } = await loadTask('country-capital');
  const [item] = splitTask({ items, ...rest }, 1).test;
  const format = await promptFormat(model, 'paper');
  const parts = format.write({ query: item as TaskItem, queryModality: 'text' });
  const prompt = await model.prompt(parts);
  const outputs = items.map(({ output }) => output);
  for (const [i, { tokens, first }] of (await answerTokens(model, parts, format, outputs)).entries()) {
    const whole = await model.prompt([...parts, outputs[i] as string]);
    expect({ tokens, first }).toEqual({ tokens: [...whole.tokens.slice(prompt.length)], first: 0 });
  }
});

test('in a cache too small for a batch, the items whose own states are read go in parts, and answer the same', async () => {
  const wanted = make({
    tasks: ['food-color'],
    scores: [],
    test: 6,
    conditions: CONDITIONS.filter(({ kind, control }) => kind === 'bare' || control === 'identity'),
    layers: [3],
  });
  const answersOf = async (nCtx: number) => {
    await using small = await model.createContext({ nCtx, kvType: 'f32' });
    const passes = jest.spyOn(small, 'pass');
    const run = memoryStore();
    await runExperiment(small, wanted, run);
    const reads = passes.mock.calls.filter(([, options]) => options?.keep).map(([rows]) => rows.length);
    return {
      reads,
      answers: (await linesOf(run)).map(({ condition, item, answer }) => [condition, item, answer].join('|')),
    };
  };
  const [whole, parts] = [await answersOf(2048), await answersOf(256)];
  expect(whole.reads).toEqual([6]);
  expect(parts.reads.length).toBeGreaterThan(1);
  expect(parts.answers.sort()).toEqual(whole.answers.sort());
});
