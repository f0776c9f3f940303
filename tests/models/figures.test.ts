// Evolution, decodings and embeddings of the demo model against arithmetic on the model's own logits and states.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  decodeVector,
  distancesBetween,
  type EvolutionCell,
  runDecodings,
  runEmbedding,
  runEvolution,
  silhouettes,
} from '../../src/experiment.js';
import {
  type Context,
  extractTaskVector,
  finalNorm,
  type HiddenStates,
  loadModel,
  loadTask,
  logitLens,
  type Model,
  splitTask,
} from '../../src/index.js';
import { vectorPrompts } from '../../src/tasks/prompts.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

let model: Model;
let context: Context;
let cells: EvolutionCell[];
const shares: number[] = [];
const folder = await temporaryFolder();

beforeAll(async () => {
  model = await loadModel('demo', { threads: 1 });
  context = await model.createContext();
  cells = await runEvolution(
    context,
    { tasks: ['food-color'], modalities: ['text', 'image'], prompts: 95 },
    { onProgress: ({ done, total }) => shares.push(done / total) },
  );
}, 300_000);
afterAll(() => model.dispose());

const idOf = (text: string) => {
  const tokens = model.tokenize(text);
  expect(tokens).toHaveLength(1);
  return tokens[0] as number;
};

describe('evolution', () => {
  test('text and image prompts have the same items; no prompt stands twice; a small task goes on with the next seed', async () => {
    const [text, image] = cells as [EvolutionCell, EvolutionCell];
    const queries = (cell: EvolutionCell) => cell.readings.slice(0, 95).map(({ query, seed }) => `${seed} ${query}`);
    expect(queries(image)).toEqual(queries(text));
    const prompts = text.readings.map(({ prompt }) => prompt.text);
    expect(new Set(prompts).size).toBe(prompts.length);
    const items = (await loadTask('food-color', { pictures: true })).items.filter((item) => item.image).length;
    expect(items).toBeLessThan(95);
    expect(text.readings.slice(0, items).every(({ seed }) => seed === 1)).toBe(true);
    expect(text.readings[items]?.seed).toBe(2);
  });

  test('the last layer has the logits of the model itself', async () => {
    const [text] = cells as [EvolutionCell];
    const last = model.info.nLayers - 1;
    for (const { prompt, expected, logits, top, taskRank } of text.readings.slice(0, 5)) {
      const [result] = await context.pass([{ prompt: await model.prompt(prompt.text), logits: 'last' }]);
      const own = result?.logits?.data as Float32Array;
      const right = own[idOf(expected)] as number;
      const word = own[idOf(' color')] as number;
      expect(logits.answer?.[last]).toBeCloseTo(right, 2);
      expect(logits.task?.[last]).toBeCloseTo(Math.max(word, own[idOf('Color')] as number), 2);
      const answers = (await loadTask('food-color')).items.map(({ output }) => output);
      const others = answers.filter((answer) => answer !== expected).map((answer) => own[idOf(answer)] as number);
      expect(logits.other?.[last]).toBeCloseTo(Math.max(...others), 2);
      expect(logits.input?.[last]).toBeCloseTo(own[text.input.token] as number, 2);
      const best = own.indexOf(Math.max(...own));
      expect(top[last]).toEqual({ token: best, text: model.detokenize([best]), is: 'right answer' });
      expect(expected.startsWith(model.detokenize([best]))).toBe(true);
      const above = own.filter((logit) => logit > Math.max(word, own[idOf('Color')] as number)).length;
      // Rows in one batch round differently: neighbours hundreds of ranks down may change places.
      expect(Math.abs((taskRank?.[last] as number) - above)).toBeLessThanOrEqual(2);
    }
  });

  test('a middle layer has what the lens says of the whole vocabulary; the input token is the modal best one at layer 0', async () => {
    for (const cell of cells) {
      const counts = new Map<number, number>();
      for (const { top } of cell.readings.slice(0, cell.prompts)) {
        const token = top[0]?.token as number;
        counts.set(token, (counts.get(token) ?? 0) + 1);
      }
      expect(counts.get(cell.input.token)).toBe(Math.max(...counts.values()));
      expect(cell.input.count).toBe(counts.get(cell.input.token));
    }
    const [text] = cells as [EvolutionCell];
    const { prompt, logits, top } = text.readings[7] as EvolutionCell['readings'][number];
    const row = { prompt: await model.prompt(prompt.text), capture: { layers: [4], positions: 'last' as const } };
    const [result] = await context.pass([row]);
    const lens = await logitLens(context, result?.states as HiddenStates, { topK: model.info.nVocab });
    const all = new Map(lens.cells[0]?.[0]?.top.map(({ token, logit }) => [token, logit]));
    expect(logits.input?.[4]).toBeCloseTo(all.get(text.input.token) as number, 2);
    expect(logits.answer?.[4]).toBeCloseTo(all.get(idOf(text.readings[7]?.expected as string)) as number, 2);
    expect(top[4]?.token).toBe(lens.cells[0]?.[0]?.top[0]?.token);
  });

  test('prompts are added where the input token is the right answer', () => {
    for (const { readings, prompts, input } of cells) {
      expect(input).toMatchObject({ text: 'brown', answer: true });
      const brown = readings.slice(0, prompts).filter(({ expected }) => expected === 'brown');
      expect(brown.length).toBeGreaterThan(0);
      expect(readings).toHaveLength(prompts + brown.length);
      for (const { collisions } of brown) expect(collisions).toEqual([['input', 'answer']]);
      for (const { collisions } of readings.slice(prompts)) expect(collisions).toEqual([]);
    }
  });

  test('several seeds have their prompts each; what is missing comes from seeds after the last', async () => {
    const options = { tasks: ['food-color'], modalities: ['text'] as const, classes: ['task', 'answer'] as const };
    const promptsOf = async (seeds: readonly number[], prompts: number) => {
      const [cell] = await runEvolution(context, { ...options, seeds, prompts });
      return (cell as EvolutionCell).readings.map(({ seed, prompt }) => ({ seed, text: prompt.text }));
    };
    const both = await promptsOf([4, 2], 3);
    expect(both).toEqual([...(await promptsOf([4], 3)), ...(await promptsOf([2], 3))]);
    expect(both.map(({ seed }) => seed)).toEqual([4, 4, 4, 2, 2, 2]);
    const items = (await loadTask('food-color')).items.length;
    const counts = new Map<number, number>();
    for (const { seed } of await promptsOf([4, 2], items + 1)) counts.set(seed, (counts.get(seed) ?? 0) + 1);
    expect([...counts]).toEqual([
      [4, items],
      [2, items],
      [5, 2],
    ]);
  });

  test('progress rises to the end; what cannot run is refused', async () => {
    expect(shares.at(-1)).toBe(1);
    for (const [i, share] of shares.entries()) expect(share).toBeGreaterThanOrEqual(shares[i - 1] ?? 0);
    const tasks = ['food-color'];
    const run = (more: object) => () =>
      runEvolution(context, { tasks, modalities: ['text'], ...more }).then(() => undefined);
    await expectError(run({ prompts: 0 }), 'INVALID_ARGUMENT', /at least 1 prompt/);
    for (const seeds of [[], [1, 1], [0.5], [-1]])
      await expectError(run({ seeds }), 'INVALID_ARGUMENT', /different whole numbers/);
    await expectError(run({ tasks: ['food-smell'] }), 'TASK_INVALID', /food-smell/);
    await expectError(run({ shots: 200 }), 'TASK_INVALID', /200 shots/);
    await expectError(run({ classes: ['answer'] }), 'INVALID_ARGUMENT', /at least two/);
    const wordless = join(folder, 'wordless.json');
    await writeFile(wordless, JSON.stringify([...'abcdefgh'].map((input) => ({ input, output: input.toUpperCase() }))));
    const named = { tasks: [wordless], classes: ['task', 'answer'], shots: 2 };
    await expectError(run(named), 'TASK_INVALID', /task wordless has none/);
    const stop = { signal: AbortSignal.abort() };
    await expectError(() => runEvolution(context, { tasks, modalities: ['text'] }, stop), 'ABORTED', /aborted/);
  });
});

describe('decodings', () => {
  test('are the lens of the vectors, with the ranks of task word and answers', async () => {
    const options = { tasks: ['food-color', 'country-capital'], specs: ['text', 'instruction'] as const, prompts: 4 };
    const decodings = await runDecodings(context, { ...options, topK: 3 });
    expect(decodings.map(({ task, spec }) => `${task} ${spec}`)).toEqual([
      'food-color text',
      'food-color instruction',
      'country-capital text',
      'country-capital instruction',
    ]);
    const task = await loadTask('food-color');
    const split = splitTask(task, 1, { validation: 30, test: 0 });
    const vector = await extractTaskVector(context, split, { spec: 'text', prompts: 4 });
    const lens = await logitLens(context, vector, { topK: model.info.nVocab });
    const answers = new Set(task.items.map(({ output }) => idOf(output)));
    decodings[0]?.layers.forEach(({ layer, top, wordRank, answerRank }, l) => {
      const order = lens.cells[l]?.[0]?.top.map(({ token }) => token) as number[];
      expect(layer).toBe(l);
      expect(top.map(({ token }) => token)).toEqual(order.slice(0, 3));
      expect(wordRank).toBe(order.findIndex((token) => [idOf(' color'), idOf('Color')].includes(token)));
      expect(answerRank).toBe(order.findIndex((token) => answers.has(token)));
    });
    expect(decodings[0]?.answerTokens).toBe(answers.size);
    const seeds = await runDecodings(context, { ...options, topK: 3, seeds: [2, 1] });
    expect(seeds.map(({ spec, seed }) => `${spec} ${seed}`).slice(0, 3)).toEqual([
      'text 2',
      'text 1',
      'instruction undefined',
    ]);
    expect(seeds[1]).toEqual(decodings[0]);
    expect(seeds[0]).toEqual((await runDecodings(context, { ...options, topK: 3, seeds: [2] }))[0]);
    expect(seeds[0]?.layers).not.toEqual(seeds[1]?.layers);
    const alone = await decodeVector(context, vector);
    expect(Object.keys(alone.layers[0] ?? {})).toEqual(['layer', 'top']);
    expect(alone.layers[0]?.top).toHaveLength(5);
  });
});

describe('embeddings', () => {
  const options = {
    tasks: ['food-color', 'food-flavor'],
    modalities: ['text', 'image'] as const,
    prompts: 6,
    layer: 2,
  };

  test('points are states after the final norm: contexts their means, delimiters themselves', async () => {
    const result = await runEmbedding(context, options);
    expect(result.prompts).toHaveLength(24);
    const contexts: number[][] = [];
    const delimiters: number[][] = [];
    for (const name of options.tasks) {
      const split = splitTask(await loadTask(name, { pictures: true }), 1, { pictures: true, validation: 30, test: 0 });
      for (const modality of options.modalities) {
        for (const { parts } of vectorPrompts(split, modality, { count: 6 })) {
          const capture = { layers: [2], positions: 'all' as const };
          const [row] = await context.pass([{ prompt: await model.prompt(parts), capture }]);
          const { data, shape } = await finalNorm(context, row?.states as HiddenStates);
          const [, nPositions, nEmbd] = shape;
          const at = (p: number) => Array.from(data.subarray(p * nEmbd, (p + 1) * nEmbd));
          delimiters.push(at(nPositions - 1));
          const before = Array.from({ length: nPositions - 1 }, (_, p) => at(p));
          contexts.push(
            at(0).map((_, d) => before.reduce((sum, state) => sum + (state[d] as number), 0) / before.length),
          );
        }
      }
    }
    for (const [space, points] of [
      [result.spaces[1], contexts],
      [result.spaces[2], delimiters],
    ] as const) {
      const distances = await distancesBetween(points);
      for (const by of ['task', 'modality'] as const) {
        const own = silhouettes(
          distances,
          result.prompts.map((prompt) => prompt[by]),
        );
        const mean = own.reduce((a, b) => a + b, 0) / own.length;
        expect(space?.scores[`silhouette by ${by}`]?.value).toBeCloseTo(mean, 3);
      }
    }
    const atLayer = result.byLayer['silhouette by task']?.[2]?.value as number;
    expect(atLayer).toBeCloseTo(result.spaces[2]?.scores['silhouette by task']?.value as number, 9);
    expect(result.byLayer['silhouette by task']).toHaveLength(model.info.nLayers);
  });

  test('points of several seeds are those of each seed, and no item counts twice', async () => {
    const text = { ...options, modalities: ['text'] as const, layer: 0, prompts: 20 };
    const [both, one, two] = [
      await runEmbedding(context, { ...text, seeds: [1, 2] }),
      await runEmbedding(context, { ...text, seeds: [1] }),
      await runEmbedding(context, { ...text, seeds: [2] }),
    ];
    const named = (result: typeof both) =>
      result.prompts.map(({ task, seed, examples }) => `${task} ${seed} ${examples}`);
    expect(named(both).sort()).toEqual([...named(one), ...named(two)].sort());
    const score = both.spaces[0]?.scores['silhouette by task'];
    expect(score).toMatchObject({ n: 80, items: new Set(both.prompts.map(({ item }) => item)).size });
  });

  test('without pictures there are no scores by modality; what cannot run is refused', async () => {
    const { spaces } = await runEmbedding(context, { ...options, modalities: ['text'], layer: 0 });
    expect(spaces.map(({ of, layer }) => `${of} ${layer}`)).toEqual(['context 0', 'delimiter 0']);
    expect(Object.keys(spaces[0]?.scores ?? {})).toEqual(['silhouette by task', 'neighbours of the same task']);
    const run = (more: object) => () => runEmbedding(context, { ...options, ...more });
    await expectError(run({ layer: 8 }), 'LAYER_OUT_OF_RANGE', /0 to 7/);
    await expectError(run({ tasks: ['food-color'] }), 'INVALID_ARGUMENT', /at least two/);
    await expectError(run({ prompts: 2 }), 'INVALID_ARGUMENT', /at least 3/);
    await expectError(run({ prompts: 91 }), 'TASK_INVALID', /91 validation items/);
  });
});
