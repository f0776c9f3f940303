// The main job on the shipped model: vectors of text examples make it do the task on pictures of a style it never saw.

import { existsSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  checkRun,
  compareConditions,
  type Experiment,
  type FolderRun,
  loadExperiment,
  pairsOf,
  type ResultLine,
  runInFolder,
} from '../../src/experiment.js';
import { type Context, loadModel, loadTask, type Model, SafetensorsFile, TaskVector } from '../../src/index.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const parent = await temporaryFolder();
const folder = join(parent, 'run');
const how = { command: 'test', notes: ['a note'] };
const settings = ['tasks=[country-capital, food-color]', 'seeds=[1]', 'test=30'];
const { experiment } = await loadExperiment('main', settings);
/** A run of it with less to do: queries without and with examples, a vector, a control with a vector of its own, pictures. */
const SMALL = ['No Context', 'Text Prompt', 'Image Patch', 'Text Patch', 'Random Vector Patch'];
const small = {
  ...experiment,
  test: 6,
  validation: 6,
  prompts: 6,
  conditions: experiment.conditions.filter(({ name }) => SMALL.includes(name)),
};
let model: Model;
let context: Context;
let run: FolderRun;
let lines: ResultLine[];
let done: number[];

beforeAll(async () => {
  model = await loadModel('demo');
  context = await model.createContext();
  done = [];
  run = await runInFolder(context, experiment, folder, {
    ...how,
    onProgress: (p) => done.push(p.done / p.total),
  });
  lines = [];
  for await (const line of run.run.lines()) lines.push(line);
}, 300_000);
afterAll(() => model.dispose());

const tested = () => lines.filter(({ stage }) => stage === 'test');

test('text vectors beat the same examples in the prompt and every control on pictures, by at least 0.3', async () => {
  const pairs = pairsOf(experiment).filter(([first]) => first === 'Text Patch');
  expect(pairs.map(([, second]) => second)).toEqual([
    'No Context',
    'Text Prompt',
    'Random Vector Patch',
    'Wrong Task Patch',
    'Shuffled Labels Patch',
    'Wrong Layer Patch',
    'Identity Patch',
  ]);
  const found = await compareConditions(tested(), pairs, 'strict');
  for (const { second, value, adjusted } of found.filter(({ second }) => !/Shuffled|Wrong Layer/.test(second))) {
    expect({ second, enough: value >= 0.3 && adjusted < 0.01 }).toEqual({ second, enough: true });
  }
});

test('every condition answers the same test queries, and none of them is a validation item', () => {
  const items = (condition: string) =>
    tested()
      .filter((line) => line.condition === condition)
      .map((line) => `${line.task}: ${line.item}`);
  const [first, ...others] = experiment.conditions.map(({ name }) => items(name));
  expect(first).toHaveLength(60);
  for (const other of others) expect(other).toEqual(first);
  const validation = new Set(
    lines.filter(({ stage }) => stage === 'validation').map((line) => `${line.task}: ${line.item}`),
  );
  for (const item of first ?? []) expect(validation).not.toContain(item);
  for (const answer of tested().filter(({ condition }) => condition === 'No Context')) {
    expect(answer.prompt?.text).toBe('Q:<image>\nA:');
    expect(answer.prompt?.images?.[0]).toMatch(/^data\/images\/twemoji\/.*\.png$/);
  }
});

test('each picture is encoded once', async () => {
  const tasks = await Promise.all(experiment.tasks.map((name) => loadTask(name, { pictures: true })));
  const pictures = new Set(tasks.flatMap((task) => task.items.flatMap((item) => item.image ?? [])));
  expect(model.imageEncodes).toBeGreaterThan(60);
  expect(model.imageEncodes).toBeLessThanOrEqual(pictures.size);
});

test('the folder holds what repeating the run takes, and a line for every answer', async () => {
  expect((await readdir(folder)).sort()).toEqual([
    'figures',
    'manifest.json',
    'report.html',
    'results.jsonl',
    'tables',
    'vectors',
  ]);
  const blocks = run.report.blocks.filter(({ kind }) => kind === 'table' || kind === 'examples');
  expect((await readdir(join(folder, 'tables'))).sort()).toEqual(
    blocks.flatMap(({ name }) => ['csv', 'md', 'tex', 'txt'].map((ending) => `${name}.${ending}`)).sort(),
  );
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({ status: 'complete', layers: run.layers, options: { seeds: [1] } });
  expect(manifest.model.hash).toBe(model.identity.hash);
  expect(manifest.lines).toBe(lines.length);
  expect(await readFile(join(folder, 'report.html'), 'utf8')).not.toMatch(/src="http|href="http/);
});

test('an answer can be had again from its line and its vector', async () => {
  const answer = tested().find(({ condition, strict }) => condition === 'Text Patch' && strict);
  const { vector: name, layer, prompt } = answer as ResultLine;
  const vector = await TaskVector.load(join(folder, 'vectors', `${name}.safetensors`));
  const query = await model.prompt(['Q:', { image: prompt?.images?.[0] as string }, '\nA:']);
  const [again] = await context.generate([{ prompt: query, interventions: [vector.at(layer as number)] }], {
    maxTokens: 16,
    stop: ['\n'],
  });
  expect(again.text).toBe(answer?.answer);
});

test('a saved vector has all layers and says how it was made', async () => {
  const path = join(folder, 'vectors', 'food-color.text.seed1.safetensors');
  const file = await SafetensorsFile.open(path);
  expect(file.tensors.get('task_vector')?.shape).toEqual([model.info.nLayers, model.info.nEmbd]);
  await file.close();
  const vector = await TaskVector.load(path);
  expect(vector.info.origin).toMatchObject({ op: 'prompts', task: 'food-color', spec: 'text', shots: 5, seed: 1 });
  expect(vector.requireCompatible(model.identity)).toBe('same');
});

test('progress rises to the end', () => {
  expect(done.at(-1)).toBe(1);
  for (const [i, share] of done.entries()) expect(share).toBeGreaterThanOrEqual(done[i - 1] ?? 0);
});

test('an aborted run ends with ABORTED, keeps what it wrote, goes on, and leaves the context usable', async () => {
  const controller = new AbortController();
  const path = join(parent, 'aborted');
  await expectError(
    () =>
      runInFolder(context, small, path, {
        ...how,
        signal: controller.signal,
        onProgress: ({ stage }) => stage === 'test' && controller.abort(),
      }),
    'ABORTED',
    /Its answers are kept/,
  );
  const manifest = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8'));
  expect(manifest.status).toBe('running');
  expect(await readdir(join(path, 'vectors'))).toContain('country-capital.text.seed1.safetensors');
  await expect(context.pass([{ prompt: await model.prompt('Q:Peru\nA:'), topK: 1 }])).resolves.toHaveLength(1);
  const { run: whole } = await runInFolder(context, small, path, how);
  expect(whole.manifest).toMatchObject({ status: 'complete', lines: whole.known.size });
}, 300_000);

test('a run that was damaged is whole again after the same call, and lines that are not its own stop it', async () => {
  const path = join(parent, 'damaged');
  const results = join(path, 'results.jsonl');
  const vectors = ['country-capital.text.seed1', 'country-capital.text.random-vector.seed1'].map((name) =>
    join(path, 'vectors', `${name}.safetensors`),
  );
  const files = [join(path, 'report.html'), join(path, 'tables', 'lenient.csv'), ...vectors];
  const state = async () => ({
    lines: (await readFile(results, 'utf8')).split('\n').sort(),
    files: await Promise.all(files.slice(1).map((file) => readFile(file, 'utf8'))),
    page: existsSync(files[0] as string),
  });
  await runInFolder(context, small, path, how);
  const whole = await state();

  const text = await readFile(results, 'utf8');
  const damages: (() => Promise<unknown>)[] = [
    () => Promise.all(vectors.map((file) => rm(file))),
    () => Promise.all(files.map((file) => rm(file))),
    () => writeFile(results, text.slice(0, -1000)),
    () => writeFile(results, text.slice(text.indexOf('\n') + 1)),
    () => Promise.all([rm(results), rm(vectors[0] as string)]),
  ];
  for (const damage of damages) {
    await damage();
    const { run: mended } = await runInFolder(context, small, path, how);
    expect(mended.manifest).toMatchObject({ status: 'complete', lines: mended.known.size });
    expect(await state()).toEqual(whole);
    expect((await checkRun(path)).checks.filter((check) => check.state !== 'ok')).toEqual([]);
  }

  const own = text.split('\n').findLast((one) => one.includes('"Random Vector Patch"')) as string; // at the layer of Text Patch
  const line = JSON.parse(own) as ResultLine;
  const strange = [
    [
      { ...line, item: 'Atlantis' },
      /^Line \d+ of .*results\.jsonl was changed: .*Atlantis.* is not one of its queries\. Delete/,
    ],
    [{ ...line, expected: 'x\u202e' }, /has expected "x\\u\{202e\}", but in the task it is/],
    [{ ...line, condition: 'Text Patch', layer: line.layer === 0 ? 1 : 0 }, /lines, but \d+ were planned/],
  ] as const;
  for (const [changed, message] of strange) {
    const manifest = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8'));
    await writeFile(join(path, 'manifest.json'), JSON.stringify({ ...manifest, status: 'running' }));
    const others = whole.lines.filter((other) => other !== JSON.stringify(line) && other !== '');
    await writeFile(results, `${[...others, JSON.stringify(changed)].join('\n')}\n`);
    await expectError(() => runInFolder(context, small, path, how), 'RUN_INVALID', message);
    expect(JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8')).status).toBe('running');
  }
}, 300_000);

test('what cannot run is refused before anything is written', async () => {
  const refused = (more: Partial<Experiment>, code: Parameters<typeof expectError>[1], message: RegExp) =>
    expectError(() => runInFolder(context, { ...experiment, ...more }, join(parent, 'refused'), how), code, message);
  await refused({ tasks: ['food-color'] }, 'CONFIG_INVALID', /two tasks/);
  await refused({ tasks: ['food-color', 'food-smell'] }, 'TASK_INVALID', /food-smell/);
  await refused({ validation: 500 }, 'TASK_INVALID', /500/);
  expect(await readdir(parent)).not.toContain('refused');
  await expectError(
    () => runInFolder(context, { ...experiment, shots: 4 }, folder, how),
    'RUN_MISMATCH',
    /: shots: 5 there, 4 here/,
  );
});
