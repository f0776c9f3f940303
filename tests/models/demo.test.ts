// The main job on the shipped model: vectors of text examples make it do the task on pictures of a style it never saw.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  type Context,
  loadModel,
  loadTask,
  MAIN_TABLE_DEFAULTS,
  type MainTableOptions,
  type MainTableRun,
  type Model,
  SafetensorsFile,
  TaskVector,
  textPatchDifferences,
  writeMainTableRun,
} from '../../src/index.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const parent = await temporaryFolder();
const options: MainTableOptions = {
  ...MAIN_TABLE_DEFAULTS,
  tasks: ['country-capital', 'food-color'],
  seeds: [1],
  test: 30,
  queries: 'image',
};
const how = { command: 'test', notes: ['a note'] };
let model: Model;
let context: Context;
let run: MainTableRun;
let done: number[];

beforeAll(async () => {
  model = await loadModel('demo');
  context = await model.createContext();
  done = [];
  run = await writeMainTableRun(context, join(parent, 'run'), options, how, {
    onProgress: (p) => done.push(p.done / p.total),
  });
}, 300_000);
afterAll(() => model.dispose());

test('text vectors beat the same examples in the prompt and both controls on pictures, by at least 0.3', () => {
  for (const { than, value } of textPatchDifferences(run.answers, 'strict')) {
    expect({ than, enough: value >= 0.3 }).toEqual({ than, enough: true });
  }
});

test('every condition answers the same test queries, and none of them is a validation item', () => {
  const items = (condition: string) =>
    run.answers.filter((a) => a.condition === condition).map((a) => `${a.task}: ${a.item}`);
  const [first, ...others] = [...new Set(run.answers.map((a) => a.condition))].map(items);
  expect(first).toHaveLength(60);
  for (const other of others) expect(other).toEqual(first);
  for (const answer of run.answers.filter((a) => a.condition === 'No Context')) {
    expect(answer.prompt?.text).toBe('Q:<image>\nA:');
    expect(answer.prompt?.images?.[0]).toMatch(/^data\/images\/twemoji\/.*\.png$/);
  }
});

test('each picture is encoded once', async () => {
  const tasks = await Promise.all(options.tasks.map((name) => loadTask(name, { pictures: true })));
  const pictures = new Set(tasks.flatMap((task) => task.items.flatMap((item) => item.image ?? [])));
  const before = model.imageEncodes;
  expect(before).toBeLessThanOrEqual(pictures.size);
  const [picture] = pictures;
  await model.prompt(['Q:', { image: picture as string }, '\nA:']);
  expect(model.imageEncodes).toBeLessThanOrEqual(before + 1);
  const then = model.imageEncodes;
  await model.prompt(['Q:', { image: picture as string }, '\nA:']);
  expect(model.imageEncodes).toBe(then);
});

test('the folder holds what repeating the run takes, and a line for every answer', async () => {
  const folder = join(parent, 'run');
  expect((await readdir(folder)).sort()).toEqual([
    'figures',
    'manifest.json',
    'report.html',
    'results.jsonl',
    'sweep.json',
    'tables',
    'vectors',
  ]);
  expect((await readdir(join(folder, 'figures'))).sort()).toEqual(
    ['csv', 'json', 'png', 'svg'].map((ending) => `layer-sweep.${ending}`),
  );
  expect((await readdir(join(folder, 'tables'))).sort()).toEqual(
    ['examples', 'lenient', 'strict'].flatMap((name) =>
      ['csv', 'md', 'tex', 'txt'].map((ending) => `${name}.${ending}`),
    ),
  );
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({ status: 'complete', layer: run.layer, options: { seeds: [1] } });
  expect(manifest.model.hash).toBe(model.identity.hash);
  const lines = (await readFile(join(folder, 'results.jsonl'), 'utf8')).trimEnd().split('\n');
  expect(lines.map((line) => JSON.parse(line))).toEqual(JSON.parse(JSON.stringify(run.answers)));
  expect(await readFile(join(folder, 'report.html'), 'utf8')).not.toMatch(/src="http|href="http/);
});

test('an answer can be had again from its line and its vector', async () => {
  const answer = run.answers.find((a) => a.condition === 'Text Patch' && a.strict);
  const { vector: name, layer, prompt } = answer as Required<(typeof run.answers)[number]>;
  const vector = await TaskVector.load(join(parent, 'run', 'vectors', `${name}.safetensors`));
  const query = await model.prompt(['Q:', { image: prompt.images?.[0] as string }, '\nA:']);
  const [again] = await context.generate([{ prompt: query, interventions: [vector.toIntervention(layer)] }], {
    maxTokens: 16,
    stop: ['\n'],
  });
  expect(again?.text).toBe(answer?.answer);
});

test('a saved vector has all layers and says how it was made', async () => {
  const file = await SafetensorsFile.open(join(parent, 'run', 'vectors', 'food-color.text.seed1.safetensors'));
  expect(file.tensors.get('task_vector')?.shape).toEqual([model.info.nLayers, model.info.nEmbd]);
  await file.close();
  const vector = await TaskVector.load(join(parent, 'run', 'vectors', 'food-color.text.seed1.safetensors'));
  expect(vector.info.origin).toMatchObject({ op: 'prompts', task: 'food-color', spec: 'text', shots: 5, seed: 1 });
  expect(vector.requireCompatible(model.identity)).toBe('same');
});

test('progress rises to the end', () => {
  expect(done.at(-1)).toBe(1);
  for (const [i, share] of done.entries()) expect(share).toBeGreaterThanOrEqual(done[i - 1] ?? 0);
});

test('an aborted run ends with ABORTED, keeps what it wrote, and leaves the context usable', async () => {
  const controller = new AbortController();
  const folder = join(parent, 'aborted');
  await expectError(
    () =>
      writeMainTableRun(context, folder, options, how, {
        signal: controller.signal,
        onProgress: ({ stage }) => {
          if (stage.startsWith('layers')) controller.abort();
        },
      }),
    'ABORTED',
    /aborted/,
  );
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  expect(manifest.status).toBe('running');
  expect(await readdir(join(folder, 'vectors'))).toContain('country-capital.text.seed1.safetensors');
  await expect(context.pass([{ prompt: await model.prompt('Q:Peru\nA:'), topK: 1 }])).resolves.toHaveLength(1);
}, 120_000);

test('what cannot run is refused before any pass', async () => {
  const refused = (more: Partial<MainTableOptions>, code: Parameters<typeof expectError>[1], message: RegExp) =>
    expectError(
      () => writeMainTableRun(context, join(parent, Math.random().toString(36)), { ...options, ...more }, how),
      code,
      message,
    );
  await refused({ tasks: ['food-color'] }, 'INVALID_ARGUMENT', /two tasks/);
  await refused({ tasks: ['food-color', 'food-smell'] }, 'TASK_INVALID', /food-smell/);
  await refused({ validation: 500 }, 'TASK_INVALID', /500/);
  await expectError(() => writeMainTableRun(context, join(parent, 'run'), options, how), 'FILE_WRITE', /not empty/);
});
