import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import sharp from 'sharp';
import { checkTask, type TaskCheck } from '../../src/tasks/check.js';
import { type ImportOptions, importTask } from '../../src/tasks/import.js';
import { splitTask } from '../../src/tasks/split.js';
import { listTasks, loadTask } from '../../src/tasks/task.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
let files = 0;
async function write(content: unknown): Promise<string> {
  const path = join(folder, `check${files++}.json`);
  await writeFile(path, JSON.stringify(content));
  return path;
}

interface Item {
  input: string;
  output: string;
  image?: string;
}
/** A task without faults: different inputs, answers that share no beginning. */
const clean = (n: number, pictures = false): Item[] =>
  Array.from({ length: n }, (_, i) => {
    const output = `${String.fromCharCode(97 + (i % 26))}${Math.floor(i / 26)}x`;
    return { input: `thing ${i}`, output, ...(pictures && { image: `pictures/p${i}.png` }) };
  });
const list = ({ findings }: TaskCheck) => findings.map(({ level, kind, items }) => [level, kind, items]);
const check = async (items: unknown, options = {}) => checkTask(await write(items), options);

beforeAll(async () => {
  await mkdir(join(folder, 'pictures'));
  for (let i = 0; i < 140; i++) {
    const background = { r: i, g: 200, b: 255 - i };
    await sharp({ create: { width: 4, height: 4, channels: 3, background } })
      .png()
      .toFile(join(folder, `pictures/p${i}.png`));
  }
  await writeFile(
    join(folder, 'pictures', 'broken.png'),
    (await readFile(join(folder, 'pictures', 'p0.png'))).subarray(0, 40),
  );
  await writeFile(join(folder, 'pictures', 'copy of 5.png'), await readFile(join(folder, 'pictures', 'p5.png')));
  // Other bytes, the same pixels.
  await sharp(join(folder, 'pictures', 'p7.png'))
    .webp({ lossless: true })
    .toFile(join(folder, 'pictures', 'p7.webp'));
});

describe('check of a task', () => {
  test('without faults finds nothing, with or without pictures', async () => {
    expect(await check(clean(130))).toMatchObject({
      items: 130,
      inputs: 130,
      inputsWithPicture: 0,
      answers: 130,
      findings: [],
    });
    expect(await check(clean(130, true))).toMatchObject({ inputsWithPicture: 130, findings: [] });
  });

  test('lists every item that the loader refuses, not only the first', async () => {
    const items: unknown[] = clean(140);
    items[3] = 'Peru';
    items[10] = { input: ' ', output: '' };
    items[11] = { input: 'Peru', output: 'Li\nma' };
    items[12] = { input: 'Peru', output: 'Lima', image: 5 };
    const found = await check(items);
    expect(list(found)).toEqual([
      ['error', 'invalid-item', [3]],
      ['error', 'invalid-item', [10]],
      ['error', 'invalid-item', [10]],
      ['error', 'invalid-item', [11]],
      ['error', 'invalid-item', [12]],
    ]);
    expect(found.findings[3]?.message).toMatch(/item 11: .*one line/);
    expect(found).toMatchObject({ items: 140, inputs: 136 });
    await expectError(() => loadTask(found.file), 'TASK_INVALID', /item 3/);
  });

  test('finds missing and broken pictures, and starts from the folder it is told', async () => {
    const items = clean(130, true);
    (items[4] as Item).image = 'pictures/nowhere.png';
    (items[8] as Item).image = 'pictures/broken.png';
    const found = await check(items);
    expect(list(found)).toEqual([
      ['error', 'missing-picture', [4]],
      ['error', 'broken-picture', [8]],
      ['warning', 'too-few-items', []],
    ]);
    expect(found.inputsWithPicture).toBe(128);
    const bare = clean(130, true).map((item, i) => ({ ...item, image: `p${i}.png` }));
    expect((await check(bare, { imagesRoot: join(folder, 'pictures') })).findings).toEqual([]);
    expect((await check(bare)).findings.filter(({ kind }) => kind === 'missing-picture').length).toBe(130);
  });

  test('finds equal inputs: a warning with one answer, an error with two', async () => {
    const items = [...clean(130), { input: 'thing 7', output: 'h0x' }, { input: 'thing 9', output: 'other' }];
    const found = await check(items);
    expect(list(found)).toEqual([
      ['error', 'contradiction', [9, 131]],
      ['warning', 'duplicate', [7, 130]],
    ]);
    expect(found.findings[0]?.message).toContain('"thing 9" and different answers: "j0x", "other"');
  });

  test('finds pictures and inputs that stand on both sides of a split, under the seeds that do it', async () => {
    const items = clean(130, true);
    items.push({ input: 'the fifth', output: 'f0x', image: 'pictures/copy of 5.png' });
    items.push({ input: 'the seventh', output: 'unlike', image: 'pictures/p7.webp' });
    items.push({ input: 'Thing  11', output: 'l0x', image: 'pictures/p139.png' });
    const twins = { 5: 'the fifth', 7: 'the seventh', 11: 'Thing  11' };
    const seeds = Array.from({ length: 40 }, (_, seed) => seed);
    const found = await check(items, { seeds });
    // The same by hand, from the splits themselves.
    const task = await loadTask(found.file, { pictures: true });
    for (const [i, twin] of Object.entries(twins)) {
      const apart = seeds.filter((seed) => {
        return [false, true].some((pictures) => {
          const { validation, test } = splitTask(task, seed, { pictures });
          const side = (input: string) =>
            validation.some((item) => item.input === input)
              ? 'v'
              : test.some((item) => item.input === input)
                ? 't'
                : '';
          return [side(`thing ${i}`), side(twin)].sort().join('') === 'tv';
        });
      });
      const about = found.findings.filter(({ items: places }) => places.includes(Number(i)));
      expect(about.length).toBe(1);
      expect(apart.length).toBeGreaterThan(0);
      expect(about[0]).toMatchObject({ level: 'error', kind: 'leak' });
      expect(about[0]?.message).toMatch(new RegExp(`under seed ${apart.join(', ')}$`));
      expect(about[0]?.message.includes('different answers')).toBe(i === '7');
      const together = await check(items, { seeds: seeds.filter((seed) => !apart.includes(seed)) });
      expect(together.findings.find(({ items: places }) => places.includes(Number(i)))).toMatchObject({
        level: 'warning',
        kind: i === '11' ? 'near-duplicate' : 'same-picture',
      });
    }
  });

  test('finds a task of one answer, however it is written', async () => {
    const items = clean(130).map((item, i) => ({ ...item, output: ['red', ' red '][i % 2] as string }));
    const { findings } = await check(items);
    expect(findings.filter(({ level }) => level === 'error')).toMatchObject([
      { kind: 'one-answer', message: expect.stringMatching(/^all items have the answer "red"/) },
    ]);
    (items[7] as Item).output = 'blue';
    expect((await check(items)).findings.some(({ kind }) => kind === 'one-answer')).toBe(false);
  });

  test('finds answers that a score cannot tell apart', async () => {
    const items = clean(130);
    for (const [i, output] of ['red', 'red wine', 'reddish', 'Red', ' blue '].entries())
      (items[i] as Item).output = output;
    Object.assign(items[6] as Item, { input: 'Tunisia', output: 'Tunis' });
    Object.assign(items[8] as Item, { input: 'okapi', output: 'Okapia' });
    // The first two letters stand for a tokenizer's first token; `zz` merges with what stands before.
    const idOf = (text: string) => (text.codePointAt(0) as number) * 1000 + (text.codePointAt(1) as number);
    const of = async (answer: string) =>
      answer.startsWith('z') ? undefined : { id: idOf(answer), text: answer.slice(0, 2) };
    const found = await check(items, { firstTokens: { end: '"=>"', of } });
    const kind = (wanted: string) => found.findings.filter((finding) => finding.kind === wanted);
    expect(kind('blanks').map(({ items: places }) => places)).toEqual([[4]]);
    expect(kind('answer-in-input').map(({ message }) => message)).toEqual([
      'item 6: naming the input "Tunisia" scores as the answer "Tunis"',
      'item 8: naming the input "okapi" scores as the answer "Okapia" if case is ignored',
    ]);
    expect(kind('answer-prefix').map(({ items: places }) => places)).toEqual([[0, 1, 2]]);
    expect(kind('answer-prefix')[0]?.message).toContain('"red" begins "red wine", "reddish"');
    expect(kind('shared-first-token').map(({ items: places }) => places)).toEqual([[0, 1, 2]]);
    expect(kind('shared-first-token')[0]?.message).toContain(
      '"red", "red wine", "reddish" begin with the same token "re"',
    );
    expect(kind('no-first-token')[0]?.message).toMatch(/merges the first letters of "z0x".* with "=>"$/);
    expect(kind('no-first-token')[0]?.items).toEqual([25, 51, 77, 103, 129]);
    expect(found.findings.every(({ level }) => level === 'warning')).toBe(true);
    expect((await check(items)).findings.some(({ kind }) => kind.endsWith('first-token'))).toBe(false);
  });

  test('tells apart tokens that are parts of characters, whose texts are alike', async () => {
    const of = async (answer: string) => ({ id: answer === 'a0x' || answer === 'b0x' ? 7 : -1, text: '\ufffd' });
    const ids = new Map<string, number>();
    const apart = async (answer: string) => {
      if (!ids.has(answer)) ids.set(answer, ids.size);
      return { id: ids.get(answer) as number, text: '\ufffd' };
    };
    expect((await check(clean(130), { firstTokens: { end: '"A:"', of: apart } })).findings).toEqual([]);
    const { findings } = await check(clean(130), { firstTokens: { end: '"A:"', of } });
    expect(findings.map(({ items }) => items.length)).toEqual([2, 128]);
  });

  test('takes all right answers of an item into account', async () => {
    const items: unknown[] = clean(130);
    items[3] = { input: 'thing 3', output: ['car', ' auto'] };
    items[4] = { input: 'automobile', output: ['wagon', 'automobiles'] };
    items[5] = { input: 'thing 5', output: ['red', 'reddish'] }; // need not be told apart
    items.push({ input: 'thing 3', output: ['auto', 'car'] }, { input: 'thing 5', output: 'red' });
    const found = await check(items);
    expect(list(found)).toEqual([
      ['error', 'contradiction', [5, 131]],
      ['warning', 'duplicate', [3, 130]],
      ['warning', 'blanks', [3]],
      ['warning', 'answer-in-input', [4]],
      ['warning', 'answer-prefix', [3, 4, 130]],
      ['warning', 'answer-prefix', [5, 131]],
    ]);
    expect(found.findings[0]?.message).toContain('different answers: "red" or "reddish", "red"');
    const common = clean(130).map((item) => ({ ...item, output: [item.output, 'x'] }));
    expect(list(await check(common))).toContainEqual(['error', 'one-answer', []]);
  });

  test('finds a leak of pictures where only the second item of an input has one', async () => {
    const items = clean(130, true);
    items.unshift({ input: 'the fifth', output: 'f0x' });
    items.push({ input: 'the fifth', output: 'f0x', image: 'pictures/copy of 5.png' });
    const found = await check(items, { seeds: Array.from({ length: 40 }, (_, seed) => seed) });
    expect(list(found)).toEqual([
      ['error', 'leak', [6, 131]],
      ['warning', 'duplicate', [0, 131]],
    ]);
    expect(found.findings[1]?.message).toMatch(/only the first counts, and item 131 where pictures are needed$/);
  });

  test('takes a moment for many answers, and can be stopped', async () => {
    const many = Array.from({ length: 30_000 }, (_, i) => ({ input: `thing ${i}`, output: `a${i}x` }));
    const started = performance.now();
    expect((await check(many)).findings).toEqual([]);
    expect(performance.now() - started).toBeLessThan(10_000);
    const stop = new AbortController();
    const of = async () => {
      stop.abort();
      return undefined;
    };
    const stopped = () => check(many, { firstTokens: { end: '', of }, signal: stop.signal });
    await expectError(stopped, 'ABORTED', /aborted/);
  });

  test.each([
    [35, 'error'],
    [36, 'warning'],
    [129, 'warning'],
  ])('says that %i inputs are too few: %s', async (n, level) => {
    expect(list(await check(clean(n)))).toEqual([[level, 'too-few-items', []]]);
  });

  test('counts the inputs that have a picture by themselves', async () => {
    const items = clean(140, true).map(({ image, ...item }, i) => (i < 90 ? { ...item, image } : item));
    const found = await check(items);
    expect(list(found)).toEqual([['warning', 'too-few-items', []]]);
    const message = '90 different inputs with a picture are fewer than 130: 30 for validation and 100 for testing';
    expect(found.findings[0]?.message).toBe(message);
  });

  test('of the shipped tasks has no errors in either style', async () => {
    for (const task of await listTasks()) {
      for (const style of ['twemoji', 'noto']) {
        const { findings } = await checkTask(task, { style });
        expect(findings.filter(({ level }) => level === 'error')).toEqual([]);
      }
    }
  });

  test('stops when asked to', async () => {
    const file = await write(clean(130, true));
    const controller = new AbortController();
    const onProgress = ({ done }: { done: number }) => done === 50 && controller.abort();
    await expectError(() => checkTask(file, { signal: controller.signal, onProgress }), 'ABORTED', /aborted/);
  });
});

describe('import', () => {
  const images = join(folder, 'pictures');
  const paper = (n: number): Item[] => clean(n).map((item, i) => ({ ...item, image: `p${i}.png` }));
  const run = async (entries: unknown, change: Partial<ImportOptions> = {}) => {
    const output = join(folder, `imported${files++}.json`);
    const result = await importTask(await write(entries), { images, output, ...change });
    return { result, output };
  };

  test("of the paper's form gives a task that loads with its pictures, wherever it is written", async () => {
    await mkdir(join(folder, 'deep', 'er'), { recursive: true });
    const output = join(folder, 'deep', 'er', 'capital.json');
    const { result } = await run(paper(130), {
      output,
      instruction: 'The capital city of the country:',
      domain: 'country',
    });
    expect(result).toMatchObject({ items: 130, inputsWithPicture: 130, findings: [] });
    const task = await loadTask(output, { pictures: true });
    expect(task).toMatchObject({
      name: 'capital',
      domain: 'country',
      instruction: 'The capital city of the country:',
      hash: result.hash,
    });
    expect(task.items[3]).toEqual({ input: 'thing 3', output: 'd0x', image: join(images, 'p3.png') });
    expect(JSON.parse(await readFile(output, 'utf8')).items[3].image).toBe('../../pictures/p3.png');
  });

  test('without anything to say gives a plain list', async () => {
    const { output } = await run(paper(40));
    expect(JSON.parse(await readFile(output, 'utf8'))).toEqual(clean(40, true));
  });

  test('writes what has faults that the loader takes, and tells', async () => {
    const { result, output } = await run([...paper(40), { ...paper(1)[0], output: 'other' }]);
    expect(list(result)).toEqual([
      ['error', 'contradiction', [0, 40]],
      ['warning', 'too-few-items', []],
    ]);
    expect((await loadTask(output)).items.length).toBe(41);
  });

  const vqa = (n: number, question: string) =>
    Array.from({ length: n }, (_, i) => ({ image: `p${i}.png`, question, answer: String.fromCharCode(97 + i) }));

  test('of visual question answering: pictures as inputs, the question as instruction', async () => {
    const { output } = await run(vqa(20, 'What animal is this?'));
    const task = await loadTask(output, { pictures: true });
    expect(task).toMatchObject({ question: 'What animal is this?', instruction: 'What animal is this:' });
    expect(task.items[2]).toEqual({ input: 'p2.png', output: 'c', image: join(images, 'p2.png') });
  });

  test('of several questions takes the one that is named', async () => {
    const entries = [...vqa(20, 'What animal is this?'), ...vqa(15, 'Is it day?')];
    const { output } = await run(entries, { question: 'Is it day?', instruction: 'Day or night:' });
    expect(await loadTask(output)).toMatchObject({ question: 'Is it day?', instruction: 'Day or night:' });
    expect((await loadTask(output)).items.length).toBe(15);
    await expectError(
      () => run(entries),
      'TASK_INVALID',
      /2 questions \("What animal is this\?", "Is it day\?"\), but a task asks one/,
    );
    await expectError(() => run(entries, { question: 'Why?' }), 'TASK_INVALID', /"Why\?" is not one of them/);
  });

  test.each<[string, unknown, RegExp]>([
    ['no list', { items: [] }, /not a list/],
    ['an empty list', [], /at least one entry/],
    ['a bare string', ['x'], /entry 0: not an object/],
    ['no picture', [...paper(3), { input: 'a', output: 'b' }], /entry 3: field "image": a string/],
    ['a blank answer', [{ input: 'a', output: ' ', image: 'p0.png' }], /entry 0: field "output"/],
    ['an answer of two lines', [{ input: 'a', output: 'b\nc', image: 'p0.png' }], /entry 0.*one line/],
    [
      'another field',
      [...paper(1), { ...paper(1)[0], label: 1 }],
      /entry 1: field "label" is not one of input, output, image/,
    ],
    [
      'two forms in one',
      [...vqa(2, 'Why?'), ...paper(1)],
      /entry 2: field "input" is not one of image, question, answer/,
    ],
    [
      'a picture outside',
      [{ input: 'a', output: 'b', image: '../check0.json' }],
      /entry 0: field "image".*leads outside/,
    ],
    ['an absolute picture', [{ input: 'a', output: 'b', image: '/etc/hostname' }], /leads outside/],
    ['a missing picture', [...paper(2), { input: 'a', output: 'b', image: 'q.png' }], /entry 2: .*q\.png/],
    ['a broken picture', [{ input: 'a', output: 'b', image: 'broken.png' }], /entry 0: .*broken\.png/],
  ])('refuses %s and writes nothing', async (_, entries, message) => {
    const output = join(folder, `refused${files++}.json`);
    await expectError(() => run(entries, { output }), 'TASK_INVALID', message);
    await expect(readFile(output)).rejects.toThrow('ENOENT');
  });

  test('names the first few of many wrong entries and counts the rest', async () => {
    const entries = paper(20).map(({ image, ...rest }) => rest);
    await expectError(() => run(entries), 'TASK_INVALID', /20 entries: entry 0.*entry 4[^;]*; and 15 more\./);
  });
});
