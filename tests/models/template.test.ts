// Prompts of tasks in another template than the paper's: the same prompts in every study, as if written by hand.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readTemplate, templateNotes, templateOf } from '../../src/cli/experiment.js';
import { runDecodings, runEmbedding, runEvolution, runHeads } from '../../src/experiment.js';
import { listCatalogue } from '../../src/hub/catalogue.js';
import {
  type Context,
  extractTaskVector,
  loadModel,
  loadTask,
  type Model,
  type PromptPart,
  splitTask,
  TaskVector,
} from '../../src/index.js';
import { computeOf, computeUnits } from '../../src/studies/compute.js';
import { promptWithQuery } from '../../src/studies/heads.js';
import { taskLensPrompts } from '../../src/studies/lens-prompts.js';
import { runStudy } from '../../src/studies/study.js';
import { promptFormat } from '../../src/tasks/model-format.js';
import { type VectorExamples, vectorExamples } from '../../src/tasks/prompts.js';
import type { TaskItem } from '../../src/tasks/task.js';
import { firstTokens } from '../../src/tasks/token-classes.js';
import { vectorOfPrompts } from '../../src/vectors/extract.js';
import { xpatch } from '../command.js';
import { TEMPLATE as CHAT_TEMPLATE, writeChatModel } from '../native/chat-model.js';
import { fixture, openModel, picture } from '../native/helpers.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const TEMPLATE = { example: '{input} -> {output};\n', query: '{input} ->', stop: ';' };
const TYPED = '{input} -> {output};\\n';
const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
let model: Model;
let context: Context;

beforeAll(async () => {
  model = await loadModel('demo', { device: 'cpu', threads: 1 });
  context = await model.createContext();
});
afterAll(() => model.dispose());

const task = await loadTask('country-capital', { pictures: true });
const split = splitTask(task, 1, { pictures: true, validation: 30, test: 0 });
const shown = ({ input, image }: TaskItem, modality: 'text' | 'image') =>
  modality === 'text' ? input : { image: image as string };
/** Whole examples and an input, written out. */
const written = (shots: readonly TaskItem[], modality: 'text' | 'image', query: TaskItem, asked = modality) => [
  ...shots.flatMap((shot): PromptPart[] => [shown(shot, modality), ` -> ${shot.output};\n`]),
  shown(query, asked),
  ' ->',
  { mark: 'delimiter' },
];

test('the catalogue says how a model is asked, the command line says otherwise', async () => {
  const own = listCatalogue().filter(({ template }) => template);
  expect(own.length).toBeGreaterThan(0);
  for (const { name, template } of own) {
    expect(templateOf({ model: name })).toEqual(template);
    expect(templateOf({ model: name, template: 'paper' })).toBeUndefined();
    expect(templateNotes(template)[0]).toMatch(/Prompts are written as "Q: /);
  }
  expect(templateOf({ model: 'demo' })).toBeUndefined();
  expect(templateOf({ model: 'demo', template: 'chat' })).toBe('chat');
  expect(readTemplate(TYPED)).toEqual({ ...TEMPLATE, stop: '\n' });
  await expectError(() => readTemplate('Q:{input}'), 'CONFIG_INVALID', /needs \{input\} and \{output\}/);
});

test.each(['text', 'image'] as const)('a vector of %s examples is read in it, and says so', async (spec) => {
  const vector = await extractTaskVector(context, split, { spec, prompts: 3, template: TEMPLATE });
  const prompts = vectorExamples(split, { count: 3 }).map(({ whole, last }) => written(whole, spec, last));
  const made = { task: task.name, spec, seed: 1, shots: 5, readPosition: 'last-example', pictures: task.pictures };
  const byHand = await vectorOfPrompts(context, prompts, made);
  expect(vector.toArray()).toEqual(byHand.toArray());
  expect(vector.info.origin).toMatchObject({ template: TEMPLATE });
  expect(byHand.info.origin).not.toHaveProperty('template');
  await vector.save(at('vector.safetensors'));
  expect((await TaskVector.load(at('vector.safetensors'))).info).toEqual(vector.info);
  expect(TaskVector.mean([vector, byHand]).info.origin).toMatchObject({ op: 'mean' });
  expect(TaskVector.mean([vector, vector]).info.origin).toMatchObject({ op: 'prompts', template: TEMPLATE });
});

test('decodings, evolutions and embeddings read prompts in it', async () => {
  const options = { tasks: ['country-capital'], prompts: 3, template: TEMPLATE };
  const format = await promptFormat(model, TEMPLATE);
  const [decoding] = await runDecodings(context, { ...options, specs: ['text'] });
  const paper = await runDecodings(context, { ...options, template: 'paper', specs: ['text'] });
  expect(decoding?.layers).not.toEqual(paper[0]?.layers);
  const answers = new Set<number>();
  for (const { output } of task.items) for (const id of await firstTokens(model, output, format)) answers.add(id);
  expect(decoding?.answerTokens).toBe(answers.size);
  const [cell] = await runEvolution(context, { ...options, modalities: ['text'] });
  const text = (cell?.readings[0]?.prompt.text ?? '') as string;
  expect(text).toMatch(/^(\S.* -> \S.*;\n){4}\S.* ->$/);
  const tasks = ['country-capital', 'country-currency'];
  const embed = (template: typeof TEMPLATE | 'paper') =>
    runEmbedding(context, { ...options, tasks, modalities: ['text'], layer: 2, template });
  expect((await embed(TEMPLATE)).spaces).not.toEqual((await embed('paper')).spaces);
  const { fit, test: tests } = await taskLensPrompts(model, { prompts: 12, test: 12, template: TEMPLATE });
  for (const { parts } of [...fit, ...tests]) expect(JSON.stringify(parts)).toMatch(/ ->/);
});

test('head effects and knock-outs are of prompts in it', async () => {
  const [cell] = await runHeads(context, { tasks: ['country-capital'], prompts: 2, template: TEMPLATE });
  const whole = splitTask(task, 1, { pictures: true, validation: 30 });
  const [{ whole: shots, query }] = vectorExamples(whole, { count: 1, readPosition: 'dummy-query' }) as [
    VectorExamples,
  ];
  const prompt = await model.prompt(written(shots, 'text', query, 'image'));
  const right = (await model.prompt([...prompt.parts, ' ', query.output])).tokens[prompt.length + 1] as number;
  const blank = (await model.prompt([...prompt.parts, ' '])).tokens.slice(prompt.length);
  const { top } = await context.run({ prompt: prompt.append(blank), topK: model.info.nVocab });
  const byHand = top.find(({ token }) => token === right)?.probability;
  expect(cell?.modalities[0]?.plain[0]).toBeCloseTo(byHand as number, 3);
});

test('what a query costs is measured in it', async () => {
  const options = { task: 'country-capital', seed: 1, query: 'text', shots: 3, queries: 2, repetitions: 1 } as const;
  const { ways } = computeOf(await runStudy(computeUnits, context, { ...options, template: TEMPLATE }));
  const query = ways.find(({ way }) => way === 'Query alone')?.positions[0];
  const items = splitTask(task, 1, { validation: 4, test: 2 }).test;
  expect(query).toBe((await model.prompt(written([], 'text', items[0] as TaskItem))).length);
});

test('a run is not resumed in another template', async () => {
  const args = [
    'decode',
    '-m',
    'demo',
    '--device',
    'cpu',
    '--threads',
    '1',
    '--tasks',
    'food-color',
    '--specs',
    'text',
  ];
  const run = [...args, '--prompts', '2', '-o', at('run')];
  expect((await xpatch([...run, '--template', TYPED])).code).toBe(0);
  const manifest = JSON.parse(await readFile(at('run/manifest.json'), 'utf8'));
  expect(manifest.options.template).toEqual({ ...TEMPLATE, stop: '\n' });
  expect(manifest.notes).toContain('Prompts are written as "{input} -> {output};\\n", and queries as "{input} ->".');
  for (const other of [[], ['--template', 'paper'], ['--template', '{input}: {output}\\n']]) {
    const { code, stderr } = await xpatch([...run, ...other]);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/RUN_MISMATCH.*template/s) });
  }
  expect((await xpatch([...run, '--template', TYPED])).code).toBe(0);
});

test('where the query begins among the turns of a chat', async () => {
  writeChatModel(fixture('qwen2-vl.gguf'), at('chat.gguf'), CHAT_TEMPLATE);
  const chat = await openModel(at('chat.gguf'), { mmproj: fixture('qwen2-vl.mmproj.gguf') });
  const image = picture('square-a.png');
  const shots = [{ input: 'ab', output: 'ba', image }];
  for (const template of ['chat', 'paper'] as const) {
    const format = await promptFormat(chat, template);
    const asked = { query: { input: 'cd', output: 'dc', image }, queryModality: 'image' } as const;
    const parts = format.write({ ...asked, shots, shotModality: 'text' });
    const { prompt, end } = await promptWithQuery(chat, parts, format.write(asked), undefined);
    const examples = chat.detokenize(prompt.tokens.slice(0, end + 1));
    expect(examples).toMatch(template === 'chat' ? /ba<\|im_end\|>\n$/ : /^Q:ab\nA:ba\n\n$/);
    expect(prompt.tokens).toEqual((await chat.prompt(parts)).tokens);
  }
});
