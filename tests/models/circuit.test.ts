// The commands that take the shipped model apart, and states of many prompts.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { openCorpus } from '../../src/corpus/corpus.js';
import { loadModel, loadTask, type PromptPicture, splitTask } from '../../src/index.js';
import { fewShotPrompt, type VectorExamples, vectorExamples } from '../../src/tasks/prompts.js';
import { SafetensorsFile } from '../../src/util/safetensors.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { xpatch } from '../command.js';
import { temporaryFolder } from '../unit/helpers.js';

const folder = await temporaryFolder();
const at = (name: string) => join(folder, name);
process.env.XDG_CACHE_HOME = at('cache');
const DEMO = ['-m', 'demo', '--device', 'cpu'];
const PAIR = ['--from', 'Q:Peru\\nA:', '--into', 'Q:Cuba\\nA:', '--right', 'Lima', '--wrong', 'Havana'];

async function json(...args: string[]) {
  const { code, stdout, stderr } = await xpatch([...args, ...DEMO, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

test('a map by position, as text, JSON and a page with colours', async () => {
  const map = await json('circuit', 'map', ...PAIR, '--layers', '0,7');
  expect(map.values.map((row: number[]) => row.length)).toEqual([map.positions.length, map.positions.length]);
  expect(map.values[1].at(-1)).toBeCloseTo(map.clean, 1); // the last layer's last position decides
  expect(map.values[1][0]).toBeCloseTo(map.corrupt, 1);
  const { code, stdout } = await xpatch(['circuit', 'map', ...PAIR, '--layers', '0,7', ...DEMO, '--report', at('map')]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/by layer and position/);
  const page = await readFile(at('map/report.html'), 'utf8');
  expect(page).toMatch(/class="number q31"/);
  const { maps } = JSON.parse(/id="page-data">(.*?)<\/script>/s.exec(page)?.[1] as string);
  const view = JSON.parse(gunzipSync(Buffer.from(maps.map, 'base64')).toString());
  expect(view).toMatchObject({ layers: [0, 7], clean: map.clean, corrupt: map.corrupt, values: map.values });
  expect(view.columns.map(({ inputs }: { inputs: string[] }) => inputs.join('/'))).toContain('C/P');
  // The last layer's state at the last position is the whole answer: what is best there is best in the clean prompt.
  expect(view.top.patched[1].at(-1)[0][0]).toBe(view.top.clean[0][0]);
  expect(view.top.patched[0][0][0][0]).toBe(view.top.corrupt[0][0]);
});

test('what a patch changes of the next token, at the tokens of a text', async () => {
  const map = await json('circuit', 'map', ...PAIR.slice(0, 4), '--kl', '--layers', '0,7', '--at', '\\nA:#1');
  expect(map.metric).toMatch(/KL/);
  expect(map.clean).toBeCloseTo(0, 6);
  expect(map.corrupt).toBeGreaterThan(0.1);
  const states = await json('capture', '--prompt', 'Q:Cuba\\nA:', '--at', '\\nA:', '-o', at('at.safetensors'));
  expect([map.positions, map.tokens]).toEqual([states.positions, states.tokens]);
  expect(map.values[1].at(-1)).toBeCloseTo(0, 2); // the last layer's last position brings all of it back
  expect(map.values[0][0]).toBeCloseTo(map.corrupt, 0);
});

test('attention is cut between places named by text, by number and by picture', async () => {
  const logits = async (name: string, ...args: string[]) => {
    const { knockOut } = await json('run', '-n', '0', ...args, '--save-logits', at(name));
    const file = await SafetensorsFile.open(at(name));
    const data = await file.readFloat32('logits');
    await file.close();
    return { data, knockOut };
  };
  const text = ['--prompt', 'Q:Peru\\nA:Lima\\n\\nQ:Peru\\nA:'];
  const positions = async (name: string) =>
    (await json('capture', ...text, '--at', name, '--layers', '0', '-o', at('places.safetensors')))
      .positions as number[];
  const [first, second, colon] = [await positions('Peru#1'), await positions('Peru'), await positions('A:#2')];
  for (const [named, numbered] of [
    ['2:Peru#1->last', `2:${first}->-1`],
    ['0-3:Peru->A:#2', `0-3:${second}->${colon}`],
    ['all:all:Q:Peru#2->last', `all:${(await positions('Q:Peru#2')).join()}->last`],
    ['3:0:\\nA:Lima->last', `3:0:${(await positions('\\nA:Lima')).join()}->last`],
  ] as const) {
    const cut = await logits('named.safetensors', ...text, '--knock-out', named);
    expect(cut).toEqual(await logits('numbered.safetensors', ...text, '--knock-out', numbered));
    expect(cut.knockOut.length).toBeGreaterThan(0);
  }
  const images = ['peru', 'cuba'].flatMap((name) => ['--image', `data/images/twemoji/${name}.png`]);
  const shown = ['--prompt', 'Q:<image>\\nA:Lima\\n\\nQ:<image>\\nA:', ...images];
  const both = await logits('both.safetensors', ...shown, '--knock-out', 'all:<image>->last');
  const each = ['all:<image>#1->last', 'all:<image>#2->last'].flatMap((edge) => ['--knock-out', edge]);
  expect((await logits('each.safetensors', ...shown, ...each)).data).toEqual(both.data);
  const one = await logits('one.safetensors', ...shown, '--knock-out', 'all:<image>#2->last');
  expect(one.data).not.toEqual(both.data);
  const counts = (found: { delta: number }[]) => found.map(({ delta }) => delta);
  expect(counts(both.knockOut)).toEqual(counts(one.knockOut).map((delta) => 2 * delta));
});

test('by head, and with noise instead of a corrupt prompt', async () => {
  const heads = await json('circuit', 'map', ...PAIR, '--by-head', '--positions', '0,-1', '--report', at('by-head'));
  expect(heads.positions.length).toBe(2);
  const page = await readFile(at('by-head/report.html'), 'utf8');
  expect(page).toContain(`each attention head at positions ${heads.positions.join(', ')} is written`);
  expect(heads.heads.length).toBeGreaterThan(8);
  const noise = ['--from', 'Q:Peru\\nA:', '--noise', 'Peru', '--noise-seeds', '2', '--right', 'P', '--layers', '7'];
  const traced = await json('circuit', 'map', ...noise);
  expect(traced.values[0].at(-1)).toBeCloseTo(traced.clean, 2);
});

test('attribution sums to the difference; an ablation has every part', async () => {
  const prompt = ['--prompt', 'Q:Peru\\nA:', '--right', 'Lima', '--wrong', 'Tokyo'];
  const { difference, parts } = await json('circuit', 'attribute', ...prompt, '--by-head');
  expect(parts.reduce((sum: number, { value }: { value: number }) => sum + value, 0)).toBeCloseTo(difference, 2);
  const read = await json('circuit', 'attribute', ...prompt, '--by-position', '--report', at('read'));
  expect(read.difference).toBeCloseTo(difference, 2);
  expect(read.parts.filter((one: { position?: number }) => one.position !== undefined)).toHaveLength(8 * 10);
  expect(await readFile(at('read/report.html'), 'utf8')).toMatch(/Where attention reads it/);
  await writeFile(at('items.jsonl'), `${JSON.stringify({ prompt: 'Q:Peru\nA:', right: 'Lima' })}\n`);
  const ablation = await json('circuit', 'ablate', at('items.jsonl'), '--what', 'mlp_out', '--replacement', 'mean');
  expect(ablation.without.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  const blocks = await json('circuit', 'ablate', at('items.jsonl'), '--what', 'block', '--replacement', 'mean');
  expect(blocks.without).toHaveLength(8);
});

test('pictures of a file of prompts, in JSON and in a CSV with an empty cell', async () => {
  const image = join(process.cwd(), 'data/images/twemoji/peru.png');
  const items = [
    { prompt: 'Q:<image>\nA:', image, right: 'Lima' },
    { prompt: 'Q:Peru\nA:', right: 'Lima' },
  ];
  await writeFile(at('pictures.jsonl'), items.map((item) => `${JSON.stringify(item)}\n`).join(''));
  const rows = items.map(({ prompt, image = '', right }) => `"${prompt}",${image},${right}\n`);
  await writeFile(at('pictures.csv'), `prompt,image,right\n${rows.join('')}`);
  const ablate = (name: string) => json('circuit', 'ablate', at(name), '--layers', '3');
  expect(await ablate('pictures.csv')).toEqual(await ablate('pictures.jsonl'));
  expect((await json('capture', '--prompts', at('pictures.csv'), '-o', at('pictures'))).rows).toBe(2);
  await writeFile(at('short.csv'), `prompt,image,right\n"Q:<image>\nA:",,Lima\n`);
  const { stderr } = await xpatch(['circuit', 'ablate', at('short.csv'), ...DEMO]);
  expect(stderr).toMatch(/short.csv: line \d has 1 <image> and 0 pictures/);
});

test('a function vector raises the right answer of a bare query', async () => {
  const out = at('fv.safetensors');
  const counts = ['--prompts', '6', '--corrupt-prompts', '3', '--top', '8'];
  const args = ['circuit', 'function-vector', '--tasks', 'country-capital', ...counts, '-o', out];
  const found = await json(...args, '--report', at('fv'));
  expect(found.report).toBe(at('fv'));
  const page = await readFile(at('fv/report.html'), 'utf8');
  expect(page).toMatch(/Effect of every head/);
  expect(found.best.length).toBe(8);
  expect(found.best[0].value).toBeGreaterThan(0);
  expect((await TaskVector.load(out)).info.origin).toMatchObject({ op: 'function' });
});

test('which heads carry a task in text and in pictures: a run that goes on, checked against the parts by hand', async () => {
  const args = ['circuit', 'heads', '--tasks', 'country-capital,food-color', '--prompts', '2', '--top', '3'];
  const { cells, overlap, best, edges: losses } = await json(...args, '-o', at('heads'));
  expect(overlap.rows.map(([name]: string[]) => name)).toHaveLength(4);
  for (const [, value, low, high, chance, p] of overlap.rows) {
    expect(value).toBeLessThanOrEqual(3);
    expect(low).toBeLessThanOrEqual(high);
    expect(chance).toBeCloseTo(9 / cells[0].heads.length, 6);
    expect(p > 0 && p <= 1).toBe(true);
  }
  expect(best.rows).toHaveLength(3);
  const [[, examples, probability, layer, loses, low, high]] = losses.rows;
  const [{ plain, withoutPicture }] = cells[0].modalities;
  const mean = (values: number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
  expect([examples, probability]).toEqual(['text', expect.closeTo(mean(plain), 6)]);
  expect(loses).toBeCloseTo(mean(plain) - Math.min(...withoutPicture.map(mean)), 6);
  expect(mean(withoutPicture[layer])).toBe(Math.min(...withoutPicture.map(mean)));
  expect(low <= loses && loses <= high).toBe(true);
  const [text] = cells[0].modalities;
  expect(text.effects.map((prompt: number[]) => prompt.length)).toEqual([cells[0].heads.length, cells[0].heads.length]);
  expect([text.plain.length, text.withoutPicture.length, text.withoutPicture[0].length]).toEqual([2, 8, 2]);
  // By hand: one prompt whose last token does not see the picture in layer 2.
  await using model = await loadModel('demo', { device: 'cpu', threads: 1 });
  const context = await model.createContext();
  const task = await loadTask('country-capital', { pictures: true });
  const split = splitTask(task, 1, { pictures: true });
  const [{ whole, query }] = vectorExamples(split, { shots: 5, count: 1, readPosition: 'dummy-query' }) as [
    VectorExamples,
  ];
  const prompt = await model.prompt(fewShotPrompt(whole, 'text', query, 'image'));
  const [{ first, nRows }] = prompt.pictures as [PromptPicture];
  const edges = [{ layers: 2, from: { from: first, to: first + nRows - 1 }, to: 'last' } as const];
  const right = (await model.prompt([...prompt.parts, query.output])).tokens[prompt.length] as number;
  for (const [i, row] of [{ prompt }, { prompt, edges }].entries()) {
    const { top } = await context.run({ ...row, topK: model.info.nVocab });
    const probability = top.find(({ token }) => token === right)?.probability;
    expect(i === 0 ? text.plain[0] : text.withoutPicture[2][0]).toBeCloseTo(probability as number, 3);
  }
  expect((await xpatch(['verify', at('heads'), ...DEMO, '--sample', '1'])).code).toBe(0);
  expect(await readFile(at('heads/report.html'), 'utf8')).toMatch(/same heads/);
});

test('states of pictures in the encoder', async () => {
  const pictures = ['peru', 'cuba'].map((name) => `data/images/twemoji/${name}.png`);
  const out = at('tower.safetensors');
  const result = await json(
    'capture',
    '--vision',
    ...pictures.flatMap((path) => ['--image', path]),
    '--layers',
    '0,2',
    '-o',
    out,
  );
  const tensors = result.pictures.map(({ tensor }: { tensor: string }) => tensor);
  expect([result.layers, tensors]).toEqual([
    [0, 2],
    ['vision.resid_post.0', 'vision.resid_post.1'],
  ]);
  const file = await SafetensorsFile.open(out);
  const [first, second] = [await file.readFloat32(tensors[0]), await file.readFloat32(tensors[1])];
  expect([first.length, first.every(Number.isFinite)]).toEqual([
    result.pictures[0].shape.reduce((a: number, b: number) => a * b),
    true,
  ]);
  expect(first).not.toEqual(second);
  await file.close();
  const { hooks } = await json('hooks');
  expect(hooks.at(-1)).toMatchObject({ hook: 'vision.resid_post', width: result.pictures[0].shape[2], refusals: [] });
});

test('states of a file of prompts, by template, with labels', async () => {
  await writeFile(at('prompts.csv'), 'country,label\nPeru,south\nJapan,east\nKenya,africa\n');
  const template = ['--template', 'Q:{country}\\nA:', '--layers', '3'];
  const result = await json('capture', '--prompts', at('prompts.csv'), ...template, '-o', at('corpus'));
  expect(result).toMatchObject({ prompts: 3, rows: 3 });
  const corpus = await openCorpus(at('corpus'));
  const labels = [];
  for await (const { fields } of corpus.prompts()) labels.push(fields.label);
  expect(labels).toEqual(['south', 'east', 'africa']);
  await json('capture', '--prompt', 'Q:Peru\\nA:', '--positions', 'last', '--layers', '3', '-o', at('one.safetensors'));
  const one = (await TaskVector.load(at('one.safetensors'))).state(3);
  for await (const { rows } of corpus.rows(3)) {
    expect([...(rows[0] as Float32Array)].slice(0, 5)).toEqual([...one.slice(0, 5)].map((x) => expect.closeTo(x, 1)));
  }
  await json('capture', '--prompt', 'Q:Peru\\nA:', '--at', 'Peru', '-o', at('peru.safetensors'));

  // The mark at the end is the last position; the other one is behind the country.
  const marked = ['--template', 'Q:{country}<mark:said>\\nA:<mark:end>', '--positions', 'marks', '--layers', '3'];
  const both = await json('capture', '--prompts', at('prompts.csv'), ...marked, '-o', at('marked'));
  expect(both).toMatchObject({ prompts: 3, rows: 6 });
  const prompts = [];
  for await (const prompt of (await openCorpus(at('marked'))).prompts()) prompts.push(prompt);
  for (const { positions, tokens } of prompts) expect(positions).toEqual([tokens.length - 4, tokens.length - 1]);
  const refused = async (...args: string[]) => (await xpatch(['capture', ...args, ...DEMO])).stderr;
  const lone = ['--prompts', at('prompts.csv'), '--template', 'Q:{country}', '--positions', 'marks', '-o', at('none')];
  expect(await refused(...lone)).toMatch(/POSITION_OUT_OF_RANGE.*no marks/);
  expect(await refused('-p', 'Q:', '--positions', 'marks', '-o', at('none.safetensors'))).toMatch(/needs --prompts/);
});

test('a report on the states of many prompts: a probe reads what they hold, and not what was shuffled', async () => {
  const items = (await loadTask('country-capital')).items.slice(0, 60);
  const lines = items.map(({ input }, i) => `${input},${i % 2 ? 'formal' : 'plain'},${i % 3}`);
  await writeFile(at('styles.csv'), `country,style,chance\n${lines.join('\n')}\n`);
  const template = ['--template', '{country}. {style}', '--layers', '0,5'];
  const many = ['capture', '--prompts', at('styles.csv'), ...template, '-o', at('styles')];
  const made = await json(...many, '--report', at('style-page'), '--label', 'style');
  expect(made.summary.label).toMatchObject({ field: 'style', without: 0 });
  expect(made.summary.states).toBe(items.length);
  const [{ hook, layers }] = made.summary.hooks;
  expect({ hook, layers: layers.map(({ layer }: { layer: number }) => layer) }).toEqual({
    hook: 'resid_post',
    layers: [0, 5],
  });
  for (const { probe } of layers) {
    expect(probe.accuracy.low).toBeGreaterThan(0.9); // the last token says it
    expect(probe.shuffled.value).toBeLessThan(0.75);
  }
  const page = await readFile(at('style-page/report.html'), 'utf8');
  expect(page).toContain('The most frequent label alone: 0.500');
  const { headline } = JSON.parse(await readFile(at('style-page/manifest.json'), 'utf8'));
  expect(headline).toMatch(/^style is read best at resid_post, layer 0: 1\.00 \[0\.9/);

  // The corpus is complete: another report costs no capture, and looks at the same states.
  const chance = await xpatch([...many, ...DEMO, '--report', at('chance-page'), '--label', 'chance']);
  expect(chance.stdout).toMatch(/layer 0|resid_post +0/);
  const plain = await json(...many, '--report', at('plain-page'));
  expect(plain.summary.label).toBeUndefined();
  for (const [i, { norm, cosine }] of plain.summary.hooks[0].layers.entries()) {
    const norms: number[] = [];
    for await (const { rows } of (await openCorpus(at('styles'))).rows([0, 5][i] as number)) {
      norms.push(...rows.map((row) => Math.hypot(...row)));
    }
    norms.sort((a, b) => a - b);
    expect(norm.median).toBeCloseTo(
      ((norms[(norms.length - 1) >> 1] as number) + (norms[norms.length >> 1] as number)) / 2,
      2,
    );
    expect(Math.abs(cosine)).toBeLessThan(1);
  }

  const refused = async (...more: string[]) => (await xpatch([...many, ...DEMO, ...more])).stderr;
  expect(await refused('--label', 'style')).toMatch(/--report FOLDER/);
  expect(await refused('--report', at('n'), '--label', 'nothing')).toMatch(/"nothing" has 0 values/);
  // Before a model is loaded, let alone anything computed.
  const early = await xpatch([...many, '-m', at('none.gguf'), '--report', at('m'), '--label', 'country']);
  expect(early.stderr).toMatch(/0 values that at least 5 prompts share/);
  expect(await refused('--report', at('plain-page'))).toMatch(/FILE_WRITE/);
});

test.each([
  ['a field that is an object', { a: { b: 1 } }, /line 1 has a field a that is no text or number/],
  ['a field that is null', { a: null }, /line 1 has a field a that is no text or number/],
  ['a field that is a list', { a: ['b'] }, /line 1 has a field a that is no text or number/],
])('a template takes texts and numbers: %s', async (name, fields, message) => {
  await writeFile(at('fields.jsonl'), JSON.stringify(fields));
  const { code, stderr } = await xpatch([
    ...['capture', '--prompts', at('fields.jsonl'), '--template', 'Q:{a}', '-o', at(name)],
    ...DEMO,
  ]);
  expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
});

test.each([
  ['one token twice', [{ wrong: 'Lima' }], /line 1 has the right answer as the wrong one too/],
  ['a wrong answer that is no text', [{ wrong: 5 }], /line 1 has a field wrong that is no text/],
  ['wrong answers for some', [{ wrong: 'Tokyo' }, {}], /line 2 has no wrong answer, unlike the first/],
  ['wrong answers for others', [{ wrong: null }, { wrong: 'Tokyo' }], /line 2 has a wrong answer, unlike the first/],
  ['a prompt that is empty', [{}, { prompt: '' }], /line 2: The prompt is empty/],
])('circuit ablate refuses %s', async (_, lines, message) => {
  const items = lines.map((line) => JSON.stringify({ prompt: 'Q:Peru\nA:', right: 'Lima', ...line }));
  await writeFile(at('answers.jsonl'), items.join('\n'));
  const { code, stderr } = await xpatch(['circuit', 'ablate', at('answers.jsonl'), ...DEMO, '--layers', '3']);
  expect([code, stderr]).toEqual([1, expect.stringMatching(message)]);
});

test.each([
  [['capture', '--prompt', 'x', '--report', 'y', '-o', 'x'], /--report needs --prompts/],
  [['circuit', 'map', '--from', 'Q:Peru\\nA:', '--right', 'Lima'], /either --into or --noise/],
  [['circuit', 'map', ...PAIR.slice(0, 4)], /Name the right answer/],
  [['circuit', 'map', '--from', 'Q:Peru', '--into', 'Q:Japan and more', '--right', 'x'], /do not correspond/],
  [['circuit', 'map', ...PAIR, '--layers', '99'], /layer/i],
  [['circuit', 'attribute', '--prompt', 'x', '--right', 'a'], /give --wrong too/],
  [['circuit', 'ablate', 'none.jsonl'], /none\.jsonl/],
  [
    ['circuit', 'function-vector', '--tasks', 'country-capital', '--top', '999', '-o', 'x.safetensors'],
    /heads make a vector/,
  ],
  [['capture', '--prompts', 'none.jsonl', '-o', 'x'], /none\.jsonl/],
  [['capture', '--prompt', 'x', '--chat', '-o', 'x'], /needs --prompts/],
  [['capture', '--prompt', 'x', '--at', 'y', '-o', 'x'], /not at all/],
  [['capture', '--vision', '-o', 'x'], /give --image/],
  [['capture', '--vision', '--image', 'x.png', '--prompt', 'x', '-o', 'x'], /takes no prompt/],
  [['capture', '--vision', '--image', 'x.png', '--no-bos', '-o', 'x'], /takes no prompt/],
  [['capture', '--vision', '--image', 'x.png', '--hook', 'z', '-o', 'x'], /leave out --hook/],
  [['capture', '--vision', '--image', 'x.png', '--heads', '0', '-o', 'x'], /leave out --heads/],
  [['capture', '--vision', '--image', 'x.png', '--positions', 'last', '-o', 'x'], /leave out --positions/],
  [['capture', '--vision', '--image', 'x.png', '--generate', '2', '-o', 'x'], /--generate needs --prompts/],
  [['capture', '--vision', '--prompts', 'x.txt', '-o', 'x'], /give one of them/],
  [['capture', '--prompts', 'x.txt', '-o', '-'], /must be a folder/],
  [['circuit', 'map', ...PAIR.slice(0, 4), '--right', 'Lima', '--wrong', 'Lima'], /are the same, "Lima"/],
  [['lens', '--prompt', 'x', '--at', 'x#2', '-o', 'x'], /has "x" 1 time/],
  [['lens', '--prompt', 'x', '--at', 'x', '--positions', 'last', '-o', 'x'], /either --at or --positions/],
  [['run', '--prompt', 'x', '--at', 'x'], /--at needs a patch/],
  [['run', '--prompt', 'x', '--knock-out', 'all:y->last'], /has "y" not at all/],
  [['run', '--prompt', 'x', '--knock-out', 'all:<image>->last'], /has no picture/],
  [['run', '--prompt', 'x', '--knock-out', 'all:x->x->last'], /with an arrow/],
  [['run', '--prompt', 'x', '--knock-out', 'all:3-1->last'], /is 3-1#1/],
  [['run', '--chat', '--knock-out', 'all:x->last'], /--knock-out does not work with --chat/],
  [['circuit', 'map', ...PAIR, '--kl'], /--kl needs no answer/],
  [['circuit', 'map', '--from', 'x', '--noise', 'x', '--into-image', 'a.png'], /--into-image needs --into/],
  [['circuit', 'map', ...PAIR, '--noise-seeds', '2'], /--noise-seeds needs --noise/],
])('refused: %j', async (args, message) => {
  const { code, stderr } = await xpatch([...(args as string[]), ...DEMO]);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});
