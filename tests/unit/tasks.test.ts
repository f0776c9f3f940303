import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { PromptPart } from '../../src/prompt/types.js';
import { choicesOf } from '../../src/tasks/answers.js';
import { checkTask } from '../../src/tasks/check.js';
import { hashPictures } from '../../src/tasks/hash-pictures.js';
import {
  baselineShots,
  fewShotPrompt,
  instructionPrompt,
  queryPrompt,
  vectorPrompts,
} from '../../src/tasks/prompts.js';
import { splitTask } from '../../src/tasks/split.js';
import { listTasks, loadTask, type Task, type TaskItem } from '../../src/tasks/task.js';
import { expectError, joined, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
let files = 0;
async function taskFile(content: unknown): Promise<string> {
  const path = join(folder, `task${files++}.json`);
  await writeFile(
    path,
    typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content),
  );
  return path;
}

const items = (n: number, pictures = 0): TaskItem[] =>
  Array.from({ length: n }, (_, i) => ({
    input: `in${i}`,
    output: `out${i}`,
    ...(i < pictures ? { image: `/p/${i}.png` } : {}),
  }));
const task = (list: TaskItem[]): Task => ({ name: 't', domain: 't', file: '/t.json', hash: '', items: list });
const text = (parts: readonly PromptPart[]) =>
  joined(parts)
    .map((part) => {
      if (typeof part === 'string') return part;
      return 'image' in part ? `<${String(part.image)}>` : `[${'mark' in part ? part.mark : 'tokens'}]`;
    })
    .join('');

describe('shipped tasks', () => {
  test('are the six of the paper, with its instructions', async () => {
    const names = ['country-capital', 'country-currency', 'animal-latin', 'animal-young', 'food-color', 'food-flavor'];
    expect(await listTasks()).toEqual(names);
    const capital = await loadTask('country-capital');
    expect(capital).toMatchObject({
      name: 'country-capital',
      domain: 'country',
      instruction: 'The capital city of the country:',
      taskWord: 'capital',
    });
    expect(capital.items.find((item) => item.input === 'Peru')).toEqual({ input: 'Peru', output: 'Lima' });
    expect(capital.hash).toMatch(/^[0-9a-f]{64}$/);
  });

  test('each have 130 different inputs, and pictures for 30 validation and some test items', async () => {
    for (const name of await listTasks()) {
      const shipped = await loadTask(name, { pictures: true });
      expect(new Set(shipped.items.map((item) => item.input)).size).toBe(shipped.items.length);
      expect(splitTask(shipped, 1).test.length).toBe(100);
      expect(splitTask(shipped, 1, { pictures: true }).test.length).toBeGreaterThanOrEqual(50);
      const picture = shipped.items.find((item) => item.image !== undefined)?.image ?? '';
      expect(picture).toMatch(/twemoji/);
      expect((await readFile(picture)).subarray(1, 4).toString()).toBe('PNG');
    }
  });

  test('say which names and styles there are', async () => {
    await expectError(() => loadTask('country-capitol'), 'TASK_INVALID', /"country-capitol".*country-capital, country/);
    await expectError(() => loadTask('toString'), 'TASK_INVALID', /no task named/);
    const style = (name: string) => loadTask('food-color', { pictures: true, style: name });
    await expectError(() => style('crayon'), 'TASK_INVALID', /style "crayon"/);
    await expectError(() => style('../tasks'), 'TASK_INVALID', /style/);
  });
});

describe('task files', () => {
  test("the paper's format loads unchanged, pictures beside the file or under a root", async () => {
    await mkdir(join(folder, 'flags'));
    await writeFile(join(folder, 'flags', 'peru.png'), 'x');
    const list = [
      { input: 'Peru', output: 'Lima', image: 'flags/peru.png' },
      { input: 'Chad', output: ' N’Djamena ' },
    ];
    const path = await taskFile(list);
    expect((await loadTask(path)).items).toEqual(
      [list[0], list[1]].map((i) => ({ input: i?.input, output: i?.output })),
    );
    const beside = await loadTask(path, { pictures: true, instruction: 'Capital:' });
    expect(beside.items[0]?.image).toBe(join(folder, 'flags', 'peru.png'));
    expect(beside.items[1]).toEqual({ input: 'Chad', output: ' N’Djamena ' });
    expect(beside).toMatchObject({ instruction: 'Capital:', file: path });
    expect(beside.domain).toBe(beside.name);
    const rooted = await taskFile([{ input: 'Peru', output: 'Lima', image: 'peru.png' }]);
    const found = await loadTask(rooted, { pictures: true, imagesRoot: join(folder, 'flags') });
    expect(found.items[0]?.image).toBe(join(folder, 'flags', 'peru.png'));
    await expectError(() => loadTask(rooted, { pictures: true }), 'FILE_NOT_FOUND', /item 0, field "image".*peru\.png/);
    expect(() => Object.assign(found.items[0] ?? {}, { input: 'x' })).toThrow(TypeError);
  });

  test('may say what they are about', async () => {
    const fields = {
      domain: 'place',
      instruction: 'The capital:',
      question: 'What is its capital?',
      taskWord: 'capital',
    };
    const path = await taskFile({ ...fields, items: [{ input: 'Peru', output: 'Lima' }] });
    const found = await loadTask(path);
    expect(found).toMatchObject({ ...fields, items: [{ input: 'Peru', output: 'Lima' }] });
    expect(found.name).toMatch(/^task\d+$/);
    expect((await loadTask(path, { instruction: 'Say:' })).instruction).toBe('Say:');
  });

  test('may have several right answers, and be JSON Lines, CSV or TSV', async () => {
    const expected = [
      { input: 'Peru', output: 'Lima' },
      { input: 'Bolivia, State of', output: 'Sucre', also: ['La Paz', 'Chuquisaca "S"'] },
    ];
    const answers = ['Sucre', 'La Paz', 'Chuquisaca "S"'];
    const json = await taskFile([expected[0], { input: 'Bolivia, State of', output: answers }]);
    const lines = `${JSON.stringify({ ...expected[0], image: null })}\n\n${JSON.stringify({ input: 'Bolivia, State of', output: answers })}\n`;
    const csv = '\uFEFFoutput,input,image\r\nLima,Peru,\r\n"Sucre|La Paz | Chuquisaca ""S""","Bolivia, State of",\r\n';
    const tsv = 'input\toutput\nPeru\tLima\nBolivia, State of\t"Sucre|La Paz|Chuquisaca ""S"""\n';
    for (const [ending, content] of Object.entries({ jsonl: lines, csv, CSV: csv, tsv })) {
      const path = join(folder, `more.${ending}`);
      await writeFile(path, content);
      const found = await loadTask(path);
      expect([found.items, found.name, found.domain]).toEqual([expected, 'more', 'more']);
      expect(found.hash).toBe(createHash('sha256').update(content).digest('hex'));
      expect((await checkTask(path)).findings.map(({ kind }) => kind)).toEqual(['too-few-items']);
    }
    expect((await loadTask(json)).items).toEqual(expected);
  });

  test('may have choices of their own', async () => {
    const item = { input: 'Peru', output: 'Lima', choices: ['Quito', 'Lima', 'La Paz'] };
    for (const [ending, content] of [
      ['jsonl', `${JSON.stringify(item)}\n`],
      ['csv', 'input,output,choices\nPeru,Lima,Quito | Lima|La Paz\nCuba,Havana,\n'],
    ] as const) {
      const path = join(folder, `choices.${ending}`);
      await writeFile(path, content);
      const { items } = await loadTask(path);
      expect(items[0]).toEqual(item);
      expect(choicesOf(item, items)).toEqual(item.choices);
      if (ending === 'csv') expect(choicesOf(items[1] as TaskItem, items)).toEqual(['Lima', 'Havana']);
    }
  });

  test.each<[string, string, string, RegExp]>([
    [
      'choices without the answer',
      'csv',
      'input,output,choices\na,b|c,b|d\n',
      /item 0: field "choices": the answer "c"/,
    ],
    ['a choice twice', 'csv', 'input,output,choices\na,b,b|d|b\n', /item 0: field "choices": a choice appears twice/],
    ['one choice', 'csv', 'input,output,choices\na,b,b\n', /item 0: field "choices": a list/],
    ['choices that are no texts', 'jsonl', '{"input": "a", "output": "b", "choices": ["b", 1]}', /"choices": a list/],
    ['a line that is no JSON', 'jsonl', '{"input": "a", "output": "b"}\n{', /bad\.jsonl: line 2 is not JSON/],
    ['a line without an answer', 'jsonl', '{"input": "a"}', /item 0: field "output"/],
    ['no answers', 'jsonl', '{"input": "a", "output": []}', /item 0: field "output"/],
    [
      'an answer twice',
      'jsonl',
      '{"input": "a", "output": ["b", "b"]}',
      /item 0: field "output": an answer appears twice/,
    ],
    ['a row that is too short', 'csv', 'input,output\na,b\nc\n', /bad\.csv: line 3 has 1 cell, the line of names 2/],
    ['an empty answer', 'csv', 'input,output\na,b|\n', /item 0: field "output"/],
    ['an empty cell', 'csv', 'input,output\na,\n', /item 0: field "output"/],
    ['no rows', 'csv', 'input,output\n', /at least one item/],
    ['other columns', 'tsv', 'question\tanswer\na\tb\n', /item 0: field "question" is not one of input, output, image/],
    ['a misspelt column', 'csv', 'input,output,Image\na,b,c.png\n', /field "Image" is not .* \(did you mean image\?\)/],
    [
      'a choice twice but for spaces',
      'jsonl',
      '{"input": "a", "output": "b", "choices": ["b", "b "]}',
      /appears twice/,
    ],
  ])('of records with %s are refused', async (_, ending, content, message) => {
    const path = join(folder, `bad.${ending}`);
    await writeFile(path, content);
    await expectError(() => loadTask(path), 'TASK_INVALID', message);
  });

  test.each<[string, unknown, RegExp]>([
    ['no JSON', '[{', /not JSON in UTF-8/],
    ['no UTF-8', new Uint8Array([0x5b, 0xff, 0x5d]), /not JSON in UTF-8/],
    ['an unknown field', { train: [], items: [{ input: 'a', output: 'b' }] }, /field "train" is not one of domain/],
    ['an object without items', { domain: 'x' }, /no array with at least one item/],
    ['a field that is not a text', { domain: 5, items: [{ input: 'a', output: 'b' }] }, /field "domain": a string/],
    ['a number for everything', 5, /neither an array nor an object/],
    ['nothing', [], /at least one item/],
    ['a string item', [{ input: 'a', output: 'b' }, 'c'], /item 1: not an object/],
    ['a list item', [[]], /item 0: not an object/],
    ['a misspelt field of an item', [{ input: 'a', output: 'b', choice: ['b', 'c'] }], /"choice" .*mean choices\?/],
    ['another name for the picture', [{ input: 'a', output: 'b', picture: 'c.png' }], /item 0: field "picture" is not/],
    ['no output', [{ input: 'a' }], /item 0: field "output"/],
    ['a number', [{ input: 5, output: 'b' }], /item 0: field "input"/],
    ['a blank', [{ input: ' ', output: 'b' }], /item 0: field "input"/],
    ['an answer of two lines', [{ input: 'a', output: 'b\nc' }], /item 0: field "output".*one line/],
    ['an image that is not a string', [{ input: 'a', output: 'b', image: {} }], /item 0: field "image"/],
  ])('with %s are refused', async (_, content, message) => {
    const path = await taskFile(content);
    await expectError(() => loadTask(path), 'TASK_INVALID', message);
    await expectError(() => loadTask(path), 'TASK_INVALID', /task\d+\.json/);
  });

  test('that are not there', async () => {
    await expectError(() => loadTask(join(folder, 'no.json')), 'FILE_NOT_FOUND', /no\.json/);
    await expectError(() => loadTask(`${folder}/`), 'TASK_INVALID', /it is a folder/);
  });
});

describe('pictures', () => {
  /** A task file in a folder of its own, with pictures of this content. */
  async function pictured(content: string): Promise<string> {
    const home = join(folder, `home${files++}`, 'deep');
    await mkdir(join(home, 'flags'), { recursive: true });
    await writeFile(join(home, 'flags', 'peru.png'), content);
    await writeFile(join(home, '..', 'chad.png'), 'chad');
    const list = [
      { input: 'Peru', output: 'Lima', image: './flags/peru.png' },
      { input: 'Chad', output: 'N’Djamena', image: '../chad.png' },
      { input: 'Fiji', output: 'Suva' },
    ];
    await writeFile(join(home, 'capital.json'), JSON.stringify(list));
    return join(home, 'capital.json');
  }

  test('of a task file have the names that it gives them, those of a shipped one start from the package', async () => {
    const path = await pictured('peru');
    const task = await loadTask(path, { pictures: true });
    expect([...(task.pictures ?? [])]).toEqual([
      [join(path, '..', 'flags', 'peru.png'), './flags/peru.png'],
      [join(path, '..', '..', 'chad.png'), '../chad.png'],
    ]);
    expect((await loadTask(path)).pictures).toBeUndefined();
    const shipped = await loadTask('food-color', { pictures: true });
    expect(shipped.pictures?.get(shipped.items[0]?.image as string)).toMatch(/^data\/images\/twemoji\/[\w-]+\.png$/);
    const emblems = await loadTask('emblem-color', { pictures: true });
    expect([...(emblems.pictures ?? [])][0]?.[1]).toMatch(/^data\/emblems\//);
    await expectError(
      () => loadTask('emblem-color', { style: 'noto' }),
      'TASK_INVALID',
      /of its own, .* "noto"\. Leave/,
    );
  });

  test('have one hash in every folder, another one where a picture is another', async () => {
    const hash = async (path: string) => hashPictures(await loadTask(path, { pictures: true }));
    const paths = [await pictured('peru'), await pictured('peru'), await pictured('chad')];
    const hashes = await Promise.all(paths.map(hash));
    expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(hashes[1]).toBe(hashes[0]);
    expect(hashes[2]).not.toBe(hashes[0]);
    const task = await loadTask(paths[0] as string, { pictures: true });
    await expectError(() => hashPictures(task, AbortSignal.abort()), 'ABORTED', /pictures was aborted/);
    await rm(join(paths[0] as string, '..', 'flags', 'peru.png'));
    await expectError(() => hashPictures(task), 'FILE_NOT_FOUND', /peru\.png cannot be read.*Put it back/);
  });
});

describe('splits', () => {
  test('are disjoint, repeatable, different by seed, and need no order of the file', () => {
    const list = items(150);
    const split = splitTask(task(list), 1);
    expect([split.validation.length, split.test.length]).toEqual([30, 100]);
    const inputs = [...split.validation, ...split.test].map((item) => item.input);
    expect(new Set(inputs).size).toBe(130);
    expect(splitTask(task([...list].reverse()), 1)).toMatchObject({ validation: split.validation, test: split.test });
    expect(splitTask(task(list), 2).validation).not.toEqual(split.validation);
    expect(splitTask(task(list), 1, { test: 0, validation: 12 }).validation).toEqual(split.validation.slice(0, 12));
  });

  test('with pictures take only items that have one, in the same order, as many as there are', () => {
    const list = items(150, 80);
    const withPictures = splitTask(task(list), 3, { pictures: true });
    expect([withPictures.validation.length, withPictures.test.length]).toEqual([30, 50]);
    const all = splitTask(task(list), 3, { test: 120 });
    const order = [...all.validation, ...all.test].filter((item) => item.image !== undefined);
    expect([...withPictures.validation, ...withPictures.test]).toEqual(order);
  });

  test('never put one input on both sides', () => {
    const doubled = [...items(60), ...items(60).map((item) => ({ ...item, output: 'other' }))];
    const split = splitTask(task(doubled), 1);
    expect([split.validation.length, split.test.length]).toEqual([30, 30]);
    expect([...split.validation, ...split.test].every((item) => item.output !== 'other')).toBe(true);
  });

  test('tasks about the same things split them alike', () => {
    const capitals = items(140);
    const currencies = items(140)
      .map((item) => ({ ...item, output: 'x' }))
      .reverse();
    const validation = (list: TaskItem[]) => splitTask(task(list), 1).validation.map((item) => item.input);
    expect(validation(capitals)).toEqual(validation(currencies));
  });

  test('say when there are too few items', async () => {
    await expectError(() => splitTask(task(items(29)), 1), 'TASK_INVALID', /29 different inputs, but 30 validation/);
    const pictures = () => splitTask(task(items(50, 3)), 1, { pictures: true });
    await expectError(pictures, 'TASK_INVALID', /3 different inputs with a picture/);
  });
});

describe('prompts, to the byte', () => {
  const peru = { input: 'Peru', output: 'Lima', image: '/p/peru.png' };
  const chad = { input: 'Chad:', output: "N'Djamena", image: '/p/chad.png' };
  const fiji = { input: 'Fiji', output: 'Suva' };

  test('query, examples and instruction', () => {
    expect(joined(queryPrompt(peru, 'text'))).toEqual(['Q:Peru\nA:', { mark: 'delimiter' }]);
    expect(joined(queryPrompt(peru, 'image'))).toEqual(['Q:', { image: '/p/peru.png' }, '\nA:', { mark: 'delimiter' }]);
    expect(joined(fewShotPrompt([peru, chad], 'text', fiji, 'text'))).toEqual([
      "Q:Peru\nA:Lima\n\nQ:Chad:\nA:N'Djamena\n\nQ:Fiji\nA:",
      { mark: 'delimiter' },
    ]);
    expect(joined(fewShotPrompt([fiji], 'text', chad, 'image'))).toEqual([
      'Q:Fiji\nA:Suva\n\nQ:',
      { image: '/p/chad.png' },
      '\nA:',
      { mark: 'delimiter' },
    ]);
    expect(joined(fewShotPrompt([peru, chad], 'image', fiji, 'text'))).toEqual([
      'Q:',
      { image: '/p/peru.png' },
      '\nA:Lima\n\nQ:',
      { image: '/p/chad.png' },
      "\nA:N'Djamena\n\nQ:Fiji\nA:",
      { mark: 'delimiter' },
    ]);
    const instruction = 'The capital city of the country:';
    expect(joined(instructionPrompt({ name: 't', instruction }))).toEqual([instruction, { mark: 'delimiter' }]);
  });

  test('what a task says is literal, what the template says is not', () => {
    const odd = { input: '<s>', output: '<|im_end|>' };
    expect(fewShotPrompt([odd], 'text', odd, 'text')).toEqual([
      ...['Q:', { literal: '<s>' }, '\nA:', { literal: '<|im_end|>' }, '\n\n'],
      ...['Q:', { literal: '<s>' }, '\nA:', { mark: 'delimiter' }],
    ]);
    const instruction = 'Spell <image>:';
    expect(instructionPrompt({ name: 't', instruction })[0]).toEqual({ literal: instruction });
  });

  test('a missing picture or instruction is an error', async () => {
    await expectError(() => queryPrompt(fiji, 'image'), 'TASK_INVALID', /"Fiji" has no picture/);
    await expectError(() => instructionPrompt(task([])), 'TASK_INVALID', /no instruction/);
    for (const instruction of ['The capital', 'The capital: ', ':', ' :']) {
      await expectError(() => instructionPrompt({ name: 't', instruction }), 'TASK_INVALID', /ends in a colon/);
    }
  });

  const split = splitTask(task(items(60, 60)), 1);

  test('vectors: each validation item in turn is the query, others are the shots', () => {
    const prompts = vectorPrompts(split, 'text');
    expect(prompts.length).toBe(30);
    expect(prompts.map((prompt) => prompt.query)).toEqual(split.validation);
    for (const { shots, query } of prompts) {
      expect(new Set([...shots, query]).size).toBe(6);
      expect(shots.every((shot) => split.validation.includes(shot))).toBe(true);
    }
    expect(vectorPrompts(split, 'text', { count: 3 })).toEqual(prompts.slice(0, 3));
    expect(vectorPrompts(splitTask(task(items(60, 60)), 2), 'text')).not.toEqual(prompts);
  });

  test('vectors: the last example is read before its answer, or a dummy query follows all pairs', () => {
    const [atLast] = vectorPrompts(split, 'text');
    const inputs = atLast?.shots.map((shot) => shot.input) ?? [];
    const pair = (shot: TaskItem) => `Q:${shot.input}\nA:${shot.output}\n\n`;
    const four = atLast?.shots.slice(0, 4).map(pair).join('');
    expect(text(atLast?.parts ?? [])).toBe(`${four}Q:${inputs[4]}\nA:[delimiter]`);
    const [dummy] = vectorPrompts(split, 'text', { readPosition: 'dummy-query' });
    expect(dummy?.shots).toEqual(atLast?.shots);
    expect(text(dummy?.parts ?? [])).toBe(`${atLast?.shots.map(pair).join('')}Q:${dummy?.query?.input}\nA:[delimiter]`);
  });

  test('vectors: text and image prompts have the same items', () => {
    const image = vectorPrompts(split, 'image', { shots: 2 });
    const words = vectorPrompts(split, 'text', { shots: 2 });
    expect(image.map((prompt) => prompt.shots)).toEqual(words.map((prompt) => prompt.shots));
    const [first, second] = image[0]?.shots ?? [];
    expect(text(image[0]?.parts ?? [])).toBe(
      `Q:<${first?.image}>\nA:${first?.output}\n\nQ:<${second?.image}>\nA:[delimiter]`,
    );
  });

  test('vectors: an instruction gives one prompt', () => {
    const withInstruction = splitTask({ ...task(items(40)), instruction: 'Say:' }, 1);
    expect(vectorPrompts(withInstruction, 'instruction')).toEqual([
      { parts: [{ literal: 'Say:' }, { mark: 'delimiter' }], shots: [] },
    ]);
  });

  test('baseline: other test items, the same for a query every time', () => {
    const query = split.test[7] as TaskItem;
    const shots = baselineShots(split, query);
    expect(new Set(shots).size).toBe(5);
    expect(shots.every((shot) => split.test.includes(shot) && shot !== query)).toBe(true);
    expect(baselineShots(split, query)).toEqual(shots);
    expect(baselineShots(split, split.test[8] as TaskItem)).not.toEqual(shots);
  });

  test('numbers out of range are refused', async () => {
    await expectError(() => vectorPrompts(split, 'text', { count: 31 }), 'INVALID_ARGUMENT', /31 prompts.*1 to 30/);
    await expectError(() => vectorPrompts(split, 'text', { count: 0 }), 'INVALID_ARGUMENT', /0 prompts/);
    await expectError(() => vectorPrompts(split, 'text', { shots: 0 }), 'INVALID_ARGUMENT', /at least 1 shot/);
    await expectError(() => vectorPrompts(split, 'text', { shots: 30 }), 'TASK_INVALID', /29 items to draw 30 shots/);
  });
});
