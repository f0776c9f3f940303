import { existsSync } from 'node:fs';
import { appendFile, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { differenceOfLines, differenceOfVectors } from '../../src/experiment/compare.js';
import { LayerChoice } from '../../src/experiment/layer-choice.js';
import { MANIFEST_FILE, type RunRecord } from '../../src/experiment/manifest.js';
import { Queries } from '../../src/experiment/queries.js';
import { hashResults } from '../../src/experiment/run-files.js';
import { RunFolder } from '../../src/experiment/run-folder.js';
import { majorityAnswer } from '../../src/experiment/scoring.js';
import { type Cell, itemsOf, loadCells } from '../../src/experiment/study.js';
import { keyOf, type ResultLine } from '../../src/experiment/types.js';
import { checkRun } from '../../src/experiment/verify.js';
import { checkTables, rewriteReport, writeRunReport } from '../../src/report/experiment/run.js';
import { hashPictures } from '../../src/tasks/hash-pictures.js';
import { loadTask, type TaskItem } from '../../src/tasks/task.js';
import { expectError, temporaryFolder } from './helpers.js';
import { EXPERIMENT as SAMPLE, sampleLines, sampleManifest, sampleVector } from './run-samples.js';

/** The fields of a manifest that are changed here. */
interface ChangedManifest {
  status: string;
  lines: number;
  options: { shots: number };
  tasks: { 'food-color': { sha256: string } };
  vectors: Record<string, string>;
  model: { hash: string };
}

const parent = await temporaryFolder();
const EXPERIMENT = { ...SAMPLE, shots: 3 };
const choice = new LayerChoice(EXPERIMENT);
for (const line of sampleLines()) choice.add(line);
const layer = choice.best();
const cells = await loadCells(EXPERIMENT);
/** The sample's answers to the queries that the shipped tasks give. */
const LINES = sampleLines().map((line): ResultLine => {
  const cell = cells.find(({ split }) => split.task.name === line.task && split.seed === line.seed) as Cell;
  const { input, output } = itemsOf(cell, line.stage)[Number(/\d+/.exec(line.item))] as TaskItem;
  const said = line.lenient ? { answer: output, firstToken: output } : {};
  const at = line.stage === 'test' && line.layer !== undefined ? { layer } : {};
  return { ...line, item: input, expected: output, ...said, ...at };
});
const vectors = [...new Set(LINES.flatMap(({ vector }) => vector ?? []))];
let runs = 0;

/** A complete run whose tasks are the shipped ones, with `change` made to its lines and `more` to its manifest afterwards. */
async function finishedRun(
  change: (lines: ResultLine[]) => ResultLine[] = (lines) => lines,
  more: Partial<RunRecord> = {},
): Promise<string> {
  const path = join(parent, `run-${runs++}`);
  const tasks: Record<string, { sha256: string; items: number }> = {};
  for (const source of EXPERIMENT.tasks) {
    const { name, hash, items } = await loadTask(source);
    tasks[name] = { sha256: hash, items: items.length };
  }
  const run = await RunFolder.open(path, sampleManifest({ options: EXPERIMENT, tasks }));
  await run.append(LINES);
  for (const name of vectors) await run.saveVector(name, sampleVector(1));
  await run.finish();
  const lines = change(LINES);
  // With hashes that fit, as who would deceive makes them.
  await writeFile(join(path, 'results.jsonl'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  const results = await hashResults(path);
  await run.write(MANIFEST_FILE, JSON.stringify({ ...run.manifest, ...more, lines: lines.length, results }));
  return path;
}

/** Names of the checks that failed. */
const failures = async (path: string) =>
  (await checkRun(path)).checks
    .filter(({ state }) => state === 'failed')
    .map(({ name, detail }) => `${name}: ${detail}`);

describe('the checks of a run', () => {
  test('pass where nothing was touched', async () => {
    const { checks, lines } = await checkRun(await finishedRun());
    expect(checks.map(({ name, state }) => `${name} ${state}`)).toEqual(
      ['manifest', 'lines', 'counts', 'queries', 'scores', 'layers', 'tasks', 'vectors'].map((name) => `${name} ok`),
    );
    expect(lines).toEqual(LINES);
  });

  const test0 = LINES.findIndex(({ stage }) => stage === 'test');
  const patched0 = LINES.findIndex(({ stage, layer: at }) => stage === 'test' && at !== undefined);
  const at = (index: number, more: Partial<ResultLine>) => (lines: ResultLine[]) =>
    lines.map((line, i) => (i === index ? { ...line, ...more } : line));
  const wrong = !LINES[test0]?.lenient;
  const right0 = LINES.findIndex(({ strict }) => strict);
  test.each<[string, (lines: ResultLine[]) => ResultLine[], RegExp]>([
    ['a line is missing', (lines) => lines.slice(1), /^counts: validation, Text Patch: 47 lines of 48$/],
    [
      'a line too many is there',
      (lines) => [...lines, { ...(lines[test0] as ResultLine), item: 'x' }],
      /^counts: .*25 lines of 24/,
    ],
    ['an unknown condition', at(test0, { condition: 'Other' }), /^counts: .*Other: 1 line of 0/],
    ['an unknown task', at(test0, { task: 'other' }), /^queries: .*is not one of its queries/],
    ['an unknown seed', at(test0, { seed: 9 }), /^queries: .*is not one of its queries/],
    [
      'an answer is right that is none',
      at(test0, { also: ['no'], answer: 'no', firstToken: 'no', lenient: true, strict: true }),
      /^queries: .* has also/,
    ],
    ['a score was changed', at(test0, { lenient: wrong, strict: wrong }), /^scores: .*does not match its answer/],
    ['a wrong answer is strictly right', at(test0, { answer: 'no', strict: true }), /^scores/],
    ['a right answer is strictly wrong', at(right0, { strict: false }), /^scores/],
    ['a strict score is missing', at(test0, { strict: undefined }), /^scores/],
    ['an answer that was cut off is strictly right', at(right0, { cut: true }), /^scores/],
    [
      'another answer is expected',
      at(test0, { expected: 'x', answer: 'x', firstToken: 'x', lenient: true, strict: true }),
      /^queries: .* has expected "x", but in the task it is "/,
    ],
    [
      'another domain is named',
      at(test0, { domain: 'x' }),
      /^queries: .* has domain "x", but in the task it is "country"/,
    ],
    ['a rival is named', at(test0, { rival: 'x' }), /^queries: .* has rival "x", but in the task it is none/],
    ['an item is not of the task', at(test0, { item: 'Atlantis' }), /^queries: .*Atlantis.* is not one of its queries/],
    ['an item is of the other part', at(test0, { stage: 'validation' }), /^queries: .* is not one of its queries/],
    ['no layer is patched', at(patched0, { layer: undefined }), /^queries: .* is not one of its queries/],
    ['a bare query is patched', at(test0, { layer: 1 }), /^queries: .* is not one of its queries/],
    ['a layer is not of the model', at(3, { layer: 3 }), /^queries: .* is not one of its queries/],
    ['another layer was patched', at(patched0, { layer: (layer + 1) % 3 }), /^layers: .* was chosen/],
  ])('fail where %s', async (_, change, message) => {
    const found = await failures(await finishedRun(change));
    expect(found).toContainEqual(expect.stringMatching(message));
  });

  test('fail where lines are missing and the plan was changed with them', async () => {
    const { plan } = sampleManifest();
    const { stage, condition } = LINES[test0] as ResultLine;
    const isIts = (entry: (typeof plan)[number]) => entry.stage === stage && entry.condition === condition;
    const fewer = plan.map((entry) => (isIts(entry) ? { ...entry, count: entry.count - 1 } : entry));
    const path = await finishedRun((lines) => lines.toSpliced(test0, 1), { plan: fewer });
    expect(await failures(path)).toEqual([expect.stringMatching(/^queries: it has 95 lines, .* 96 queries/)]);
  });

  test('say that queries were not compared where the task files are not those of the run, or are gone', async () => {
    const queriesOf = async (more: Partial<RunRecord>) => {
      const { checks } = await checkRun(await finishedRun(undefined, more));
      return checks.find(({ name }) => name === 'queries');
    };
    const notDone = (why: RegExp) => ({ name: 'queries', state: 'not done', detail: expect.stringMatching(why) });
    const gone = { ...EXPERIMENT, tasks: ['./gone/country-capital.json', 'food-color'] };
    expect(await queriesOf({ options: gone })).toEqual(
      notDone(/not compared with the tasks: .*country-capital\.json.*--data/),
    );
    const { tasks } = sampleManifest();
    expect(await queriesOf({ tasks })).toEqual(
      notDone(/they are not those of the run\. Name the folder .* with --data/),
    );
  });

  test('of a broken line in the middle name that one alone', async () => {
    const path = await finishedRun();
    const file = join(path, 'results.jsonl');
    await writeFile(file, (await readFile(file, 'utf8')).replace('{', 'x'));
    const [lines] = await failures(path);
    expect(lines).toMatch(/^lines: Line 1 of .* is not JSON in UTF-8, but is not the last/);
    expect(lines).not.toMatch(/torn/);
  });

  test('fail where files were changed after the run', async () => {
    const path = await finishedRun();
    const manifestFile = join(path, 'manifest.json');
    const text = await readFile(manifestFile, 'utf8');
    const change = async (edit: (manifest: ChangedManifest) => void) => {
      const manifest = JSON.parse(text);
      edit(manifest);
      await writeFile(manifestFile, JSON.stringify(manifest));
      const found = await failures(path);
      await writeFile(manifestFile, text);
      return found;
    };
    expect(
      await change((m) => {
        m.options.shots = 4;
      }),
    ).toEqual([expect.stringMatching(/^manifest: .*changed/)]);
    expect(
      await change((m) => {
        m.status = 'running';
      }),
    ).toEqual([expect.stringMatching(/^manifest: .*not complete/)]);
    expect(
      await change((m) => {
        m.lines += 1;
      }),
    ).toEqual([expect.stringMatching(/^lines: .*manifest says/)]);
    const resultsFile = join(path, 'results.jsonl');
    const lineText = await readFile(resultsFile, 'utf8');
    await writeFile(resultsFile, lineText.replace('"probability":0.', '"probability":0.0'));
    expect(await failures(path)).toEqual(['lines: they were changed after the run']);
    await writeFile(resultsFile, lineText);
    expect(
      await change((m) => {
        m.tasks['food-color'].sha256 = '0';
      }),
    ).toEqual([expect.stringMatching(/^manifest/), expect.stringMatching(/^tasks: food-color is not the file/)]);
    expect(
      await change((m) => {
        m.vectors.more = '0';
      }),
    ).toEqual(['vectors: more is missing']);
    expect(
      await change((m) => {
        delete m.vectors[vectors[0] as string];
      }),
    ).toEqual([`vectors: ${vectors[0]} is not in the manifest`]);
    expect(
      await change((m) => {
        m.model.hash = '0';
      }),
    ).toEqual([expect.stringMatching(/^manifest/), expect.stringMatching(/^vectors: .* is from another model/)]);
    expect(await failures(path)).toEqual([]);

    const results = join(path, 'results.jsonl');
    const lines = await readFile(results);
    await appendFile(results, JSON.stringify(LINES[0]));
    expect(await failures(path)).toEqual([expect.stringMatching(/^lines: the last line is torn/)]);
    await appendFile(results, '\n');
    expect(await failures(path)).toEqual([expect.stringMatching(/^lines: 1 line twice/)]);
    await appendFile(results, `${JSON.stringify({ ...LINES[0], answer: 'x' })}\n`);
    expect(await failures(path)).toEqual([expect.stringMatching(/^lines: Lines 1 and \d+ of/)]);
    await writeFile(results, lines);

    const vector = join(path, 'vectors', `${vectors[0]}.safetensors`);
    await sampleVector(2).save(vector);
    expect(await failures(path)).toEqual([`vectors: ${vectors[0]} was changed after the run`]);
    await truncate(vector, 50);
    expect(await failures(path)).toEqual([
      expect.stringMatching(/^vectors: .*changed after the run; .*is damaged\. Delete it/),
    ]);
    await rm(vector);
    expect(await failures(path)).toEqual([`vectors: ${vectors[0]} is missing`]);
  });

  test('say what is no run', async () => {
    await expectError(() => checkRun(parent), 'RUN_INVALID', /is not a run: it has no manifest/);
  });
});

test('the answer of the Random row and those of a rival are known without a model', async () => {
  const conditions = [
    { name: 'Random', kind: 'majority' },
    { name: 'Asked', kind: 'bare', question: '{rival}' },
  ] as const;
  const experiment = { ...EXPERIMENT, tasks: ['food-color'], seeds: [1], conditions };
  const [cell] = (await loadCells(experiment)) as [Cell];
  const queries = new Queries({ experiment, cells: [cell] }, 3, undefined);
  expect(queries.lines).toBe(2 * experiment.test);
  const item = cell.split.test.find(({ input }) => cell.rival?.answers.has(input)) as TaskItem;
  const bare = LINES.find(({ stage, layer: at }) => stage === 'test' && at === undefined) as ResultLine;
  const said = { ...bare, task: 'food-color', seed: 1, domain: 'food' };
  const line = { ...said, item: item.input, expected: item.output };
  const rival = cell.rival?.answers.get(item.input) as string;
  const asked = { ...line, condition: 'Asked', answer: 'whatever', rival };
  expect(queries.problemOf(asked)).toBeUndefined();
  expect(queries.problemOf({ ...asked, rival: 'x' })).toMatch(/has rival "x"/);
  const random = { ...line, condition: 'Random', answer: majorityAnswer(cell.split.validation) as string };
  expect(queries.problemOf(random)).toBeUndefined();
  expect(queries.problemOf({ ...random, answer: 'x' })).toMatch(/has answer "x"/);
});

test('task files are looked for where they are said to be, and their pictures are those of the run', async () => {
  const data = join(parent, 'data');
  await mkdir(join(data, 'pics'), { recursive: true });
  const [picture, file] = [join(data, 'pics', 'peru.png'), join(data, 'capital.json')];
  await writeFile(picture, 'peru');
  await writeFile(file, JSON.stringify([{ input: 'Peru', output: 'Lima', image: 'pics/peru.png' }]));
  const task = await loadTask(file, { pictures: true });
  const recorded = { sha256: task.hash, items: 1, pictures: await hashPictures(task) };
  const state = async (source: string, found = data, query: 'image' | 'text' = 'image') => {
    const path = join(parent, `own-${runs++}`);
    const options = { ...EXPERIMENT, query, tasks: [source] };
    await (await RunFolder.open(path, sampleManifest({ options, tasks: { capital: recorded } }))).close();
    const { checks, tasks } = await checkRun(path, { data: found });
    const tried = checks.find(({ name }) => name === 'tasks');
    return { tasks, text: `${tried?.state}: ${tried?.detail}` };
  };
  for (const source of ['./capital.json', '/of/another/machine/capital.json', 'C:\\of\\another\\capital.json']) {
    expect(await state(source)).toEqual({ tasks: [file], text: 'ok: 1 file with equal hashes, and their pictures' });
  }
  const nowhere = /^not done: Cannot read the task file .*Name the folder of the task files with --data/;
  expect((await state('./capital.json', parent)).text).toMatch(nowhere);
  await writeFile(picture, 'chad');
  expect((await state('./capital.json')).text).toBe('failed: the pictures of capital are not those of the run');
  expect((await state('./capital.json', data, 'text')).text).toBe('ok: 1 file with equal hashes');
  await rm(picture);
  expect((await state('./capital.json')).text).toMatch(/^not done: .*peru\.png does not exist.*--data/);
  await writeFile(file, JSON.stringify([{ input: 'Peru', output: 'Cusco', image: 'pics/peru.png' }]));
  expect((await state('./capital.json')).text).toMatch(/^failed: .*capital\.json is not the file of the run$/);
});

test('a report is not written anew from lines or vectors that were changed after the run', async () => {
  const path = join(parent, 'changed');
  {
    await using run = await RunFolder.open(path, sampleManifest());
    await run.append(LINES);
    for (const name of vectors) await run.saveVector(name, sampleVector(1));
    await writeRunReport(run);
    await run.finish();
  }
  const results = join(path, 'results.jsonl');
  const text = await readFile(results, 'utf8');
  const page = await readFile(join(path, 'report.html'), 'utf8');
  const lines = text.trimEnd().split('\n');
  const refused = async (message: RegExp) => {
    await expectError(() => rewriteReport(path), 'RUN_INVALID', message);
    expect(await readFile(join(path, 'report.html'), 'utf8')).toBe(page);
  };
  for (const other of [
    lines.slice(1).join('\n'),
    `${lines.join('\r\n')}\r\n`,
    text.slice(0, -3),
    text + text,
    text.replace(/"lenient":\w+/, '"lenient":true '),
    '',
  ]) {
    await writeFile(results, other);
    await refused(/results\.jsonl was changed after the run/);
  }
  await rm(results);
  await refused(/results\.jsonl was changed after the run/);
  await writeFile(results, text);
  await rewriteReport(path);
  await writeFile(join(path, 'vectors', `${vectors[0]}.safetensors`), 'x');
  await refused(/\.safetensors was changed after the run/);
  const manifest = join(path, 'manifest.json');
  await writeFile(manifest, JSON.stringify({ ...JSON.parse(await readFile(manifest, 'utf8')), title: null }));
  await expectError(() => rewriteReport(path), 'RUN_INVALID', /does not describe a run/);
});

test('tables are those that the lines give, each of them and no other', async () => {
  const path = join(parent, 'report');
  const run = await RunFolder.open(path, sampleManifest());
  await run.append(LINES);
  for (const name of vectors) await run.saveVector(name, sampleVector(1));
  await writeRunReport(run);
  await run.finish();
  const state = async () => {
    const { state: found, detail } = await checkTables(await checkRun(path));
    return `${found}: ${detail}`;
  };
  expect(await state()).toMatch(/^ok/);
  const table = join(path, 'tables', 'lenient.csv');
  const text = await readFile(table, 'utf8');
  await writeFile(table, text.replace(/0\.\d/, '0.9'));
  expect(await state()).toBe('failed: tables/lenient.csv does not match the lines');
  await rm(table);
  expect(await state()).toBe('failed: tables/lenient.csv is missing');
  await writeFile(table, text);
  for (const ending of ['txt', 'md', 'tex']) {
    const other = join(path, 'tables', `lenient.${ending}`);
    const was = await readFile(other, 'utf8');
    await writeFile(other, was.replace(/\d\.\d/, '7.7'));
    expect(await state()).toBe(`failed: tables/lenient.${ending} does not match the lines`);
    await writeFile(other, was);
  }
  // A complete run is written again where something is missing.
  for (const name of ['report.html', 'tables', 'tables/lenient.csv', 'figures/layer-sweep.png']) {
    await rm(join(path, name), { recursive: true });
    await using again = await RunFolder.open(path, sampleManifest());
    expect(again.complete).toBe(true);
    await writeRunReport(again);
    expect(existsSync(join(path, name))).toBe(true);
    expect(await state()).toMatch(/^ok/);
  }
  await writeFile(join(path, 'tables', 'other.csv'), 'row\r\n');
  expect(await state()).toBe('failed: tables/other.csv does not match the lines');
});

test('lines agree within rounding, and in everything that is said', () => {
  const line = {
    ...(LINES[0] as ResultLine),
    probability: 0.5,
    rank: 100,
    logLikelihood: -3,
    delta: 200,
    kl: 1,
    answerRank: 2,
  };
  const near = { ...line, probability: 0.505, rank: 103, logLikelihood: -3.05, delta: 201, kl: 1.05, answerRank: 3 };
  expect(differenceOfLines(line, near)).toBeUndefined();
  const others: Partial<ResultLine>[] = [
    { probability: 0.52 },
    { rank: 110 },
    { logLikelihood: -3.2 },
    { delta: 204 },
    { kl: 1.2 },
    { answerRank: 4 },
    { answer: 'x' },
    { lenient: !line.lenient },
    { vector: 'v' },
    { prompt: { text: 'Q', tokens: [1] } },
  ];
  for (const other of others) {
    const field = Object.keys(other)[0] as string;
    expect(differenceOfLines(line, { ...line, ...other })).toMatch(new RegExp(`^${field}: `));
    expect(differenceOfLines({ ...line, ...other }, line)).toMatch(new RegExp(`^${field}: `));
  }
  const { rank, ...without } = line;
  expect(differenceOfLines(line, without)).toBe('rank: 100 and none');
  expect(keyOf(without)).toBe(keyOf(line));
});

test('vectors agree within a hundredth of the norm of each layer', () => {
  expect(differenceOfVectors(sampleVector(1), sampleVector(1.01))).toBeUndefined();
  expect(differenceOfVectors(sampleVector(1), sampleVector(1.1))).toBe('layer 0');
  expect(differenceOfVectors(sampleVector(1), sampleVector(1).scale(1))).toBe('how they were made');
});
