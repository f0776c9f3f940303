// Corpora of states: shards, index, resuming, reading back.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { appendFile, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, jest, test } from '@jest/globals';
import { type CorpusOptions, captureCorpus } from '../../src/corpus/capture-corpus.js';
import { openCorpus } from '../../src/corpus/corpus.js';
import type { CorpusPrompt, CorpusShard } from '../../src/corpus/corpus-file.js';
import type { Context } from '../../src/model/context.js';
import type { Model } from '../../src/model/model.js';
import { mark } from '../../src/prompt/prompt.js';
import { summariseCorpus } from '../../src/studies/corpus-summary.js';
import { Random } from '../../src/util/random.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { cosine, load, logitsOf, randomTokens } from './helpers.js';

const parent = await temporaryFolder();
const at = (name: string) => join(parent, name);
let model: Model;
let context: Context;
beforeAll(async () => {
  model = await load('llama');
  context = await model.createContext({ nCtx: 512, kvType: 'f32' });
});

const inputs = (n: number) =>
  Array.from({ length: n }, (_, i) => ({
    prompt: { tokens: randomTokens(model, 3 + (i % 5), i) },
    fields: { label: i % 2 ? 'odd' : 'even' },
  }));

async function all(folder: string, layer: number, hook?: 'resid_post' | 'z') {
  const found: { prompt: CorpusPrompt; row: Float32Array }[] = [];
  for await (const { prompts, rows } of (await openCorpus(folder)).rows(layer, hook)) {
    for (const [i, row] of rows.entries()) found.push({ prompt: prompts[i] as CorpusPrompt, row });
  }
  return found;
}

test('every state is the one of a pass of its own, whatever shard it is in', async () => {
  const some = inputs(100);
  const progress: number[] = [];
  const options: CorpusOptions = {
    hooks: ['resid_post', 'z'],
    layers: [1, 0],
    shardBytes: 20_000,
    onProgress: ({ prompts }) => progress.push(prompts),
  };
  const manifest = await captureCorpus(context, some, at('last'), options);
  expect(manifest).toMatchObject({ status: 'complete', layers: [1, 0], hooks: ['resid_post', 'z'] });
  expect(manifest.shards.length).toBeGreaterThan(1);
  expect(progress.at(-1)).toBe(100);
  for (const hook of ['resid_post', 'z'] as const) {
    const found = await all(at('last'), 1, hook);
    expect(found.map(({ prompt }) => prompt.index)).toEqual(some.map((_, i) => i));
    for (const i of [0, 42, 99]) {
      const { prompt, fields } = some[i] as (typeof some)[number];
      const { states } = await context.run({ prompt, capture: { hook, layers: [1], positions: 'last' } });
      expect(cosine(found[i]?.row as Float32Array, states.at(1))).toBeGreaterThan(0.99999);
      expect(found[i]?.prompt).toMatchObject({ fields, tokens: prompt.tokens, positions: [prompt.tokens.length - 1] });
    }
  }
});

test('a probe is not tested on a prompt that it has learned from elsewhere in the corpus', async () => {
  const random = new Random(5, 'labels');
  const distinct = Array.from({ length: 40 }, (_, i) => ({
    prompt: { tokens: randomTokens(model, 6, 1000 + i) },
    fields: { side: random.uniform() < 0.5 ? 'left' : 'right' },
  }));
  await captureCorpus(context, [...distinct, ...distinct, ...distinct, ...distinct], at('copies'), { layers: [2] });
  const { hooks } = await summariseCorpus(await openCorpus(at('copies')), { label: 'side' });
  const probe = hooks[0]?.layers[0]?.probe;
  // Labels mean nothing; copies on both sides would make it all but 1.
  expect(probe?.accuracy.value).toBeLessThan(0.8);
  expect(probe?.accuracy.items).toBe(40);
});

describe('positions', () => {
  test('all, their mean, and marks', async () => {
    const prompt = { tokens: [5, 6, 7, 8] };
    await captureCorpus(context, [{ prompt }], at('all'), { positions: 'all' });
    await captureCorpus(context, [{ prompt }], at('mean'), { positions: 'mean' });
    const parts = [{ tokens: [5, 6] }, mark('here'), { tokens: [7, 8] }];
    await captureCorpus(context, [{ prompt: parts }], at('marks'), { positions: 'marks' });
    const rows = (await all(at('all'), 1)).map(({ row }) => row);
    expect(rows.length).toBe(4);
    const [mean] = await all(at('mean'), 1);
    for (const [d, x] of (mean?.row ?? new Float32Array(0)).entries()) {
      expect(x).toBeCloseTo(
        rows.reduce((sum, row) => sum + (row[d] as number) / 4, 0),
        5,
      );
    }
    expect(mean?.prompt.positions).toEqual([]);
    const [marked] = await all(at('marks'), 1);
    expect(marked?.prompt.positions).toEqual([1]);
    expect(cosine(marked?.row as Float32Array, rows[1] as Float32Array)).toBeGreaterThan(0.99999);
    const without = () => captureCorpus(context, [{ prompt }], at('none'), { positions: 'marks' });
    await expectError(without, 'POSITION_OUT_OF_RANGE', /no marks/);
  });

  test('logits of what is generated are bounded, which only makes more passes', async () => {
    const pass = jest.spyOn(context, 'pass');
    const read = async (name: string, logitsBytes?: number) => {
      pass.mockClear();
      await captureCorpus(context, inputs(3), at(name), { positions: 'generated', generate: 3, logitsBytes });
      const found = (await all(at(name), 0)).map(({ prompt: { tokens, generated } }) => ({ tokens, generated }));
      return { found, passes: pass.mock.calls.map(([rows]) => rows.length) };
    };
    const one = await read('one', 4 * 3 * model.info.nVocab);
    const together = await read('together');
    pass.mockRestore();
    expect([one.passes, together.passes]).toEqual([[1, 1, 1], [3]]);
    expect(one.found.length).toBeGreaterThan(3);
    for (const [i, { tokens, generated }] of one.found.entries()) {
      expect(tokens).toEqual(together.found[i]?.tokens);
      for (const [n, x] of (generated?.logProbabilities ?? []).entries())
        expect(x).toBeCloseTo(together.found[i]?.generated?.logProbabilities[n] as number, 4);
    }
  });

  test('generated tokens, with their log-probabilities', async () => {
    const prompt = { tokens: [5, 6, 7] };
    await captureCorpus(context, [{ prompt }], at('generated'), { positions: 'generated', generate: 4 });
    const found = await all(at('generated'), 0);
    const [said] = await context.generate([prompt], { maxTokens: 4 });
    const whole = [...prompt.tokens, ...said.tokens];
    expect(found[0]?.prompt.tokens).toEqual(whole);
    expect(found.length).toBe(said.tokens.length);
    const logits = await context.run({ prompt: { tokens: whole }, logits: 'all' });
    const { nVocab } = model.info;
    for (const [n, token] of said.tokens.entries()) {
      const row = logitsOf(logits).subarray((2 + n) * nVocab, (3 + n) * nVocab);
      const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      expect(found[0]?.prompt.generated?.logProbabilities[n]).toBeCloseTo((row[token] as number) - total, 4);
    }
    const nothing = () => captureCorpus(context, [{ prompt }], at('no'), { positions: 'generated' });
    await expectError(nothing, 'INVALID_ARGUMENT', /set generate/);
  });
});

describe('a corpus that was stopped', () => {
  const options: CorpusOptions = { shardBytes: 5_000 };
  const bytes = (folder: string) =>
    Promise.all(
      readdirSync(folder)
        .filter((name) => !name.startsWith('.'))
        .sort()
        .map(async (name) => [name, (await readFile(join(folder, name))).toString('base64')]),
    );

  test('goes on where it was, to the same files', async () => {
    const some = inputs(200);
    await captureCorpus(context, some, at('whole'), options);
    const controller = new AbortController();
    let passes = 0;
    const stopped = captureCorpus(context, some, at('stopped'), {
      ...options,
      signal: controller.signal,
      onProgress: () => ++passes === 2 && controller.abort(),
    });
    await expectError(() => stopped, 'ABORTED', /./);
    await expectError(() => openCorpus(at('stopped')), 'DATA_INVALID', /not complete/);
    await writeFile(at('stopped/states-00002.jsonl'), 'half of a li'); // killed between the files of a shard
    const seen: number[] = [];
    await captureCorpus(context, some, at('stopped'), {
      ...options,
      onProgress: ({ prompts }) => void seen.push(prompts),
    });
    expect(seen[0]).toBeGreaterThan(64);
    expect(await bytes(at('stopped'))).toEqual(await bytes(at('whole')));
    expect((await captureCorpus(context, some, at('stopped'), options)).status).toBe('complete');
  });

  test('is not mixed with another one', async () => {
    const other = () => captureCorpus(context, inputs(200), at('whole'), { ...options, layers: [0] });
    await expectError(other, 'RUN_MISMATCH', /its layers is \[0,1/);
    await expectError(() => captureCorpus(context, [], at('empty')), 'DATA_INVALID', /no prompts/);
  });

  test('counts what is on the disk at its end, and makes anew what was lost', async () => {
    const some = inputs(200);
    const lose: [string, (folder: string) => Promise<void>][] = [
      ['states', (folder) => rm(join(folder, 'states-00001.safetensors'))],
      ['index', (folder) => rm(join(folder, 'states-00000.jsonl'))],
      ['prompt', (folder) => writeFile(join(folder, 'states-00001.jsonl'), '')],
      ['bytes', (folder) => truncate(join(folder, 'states-00000.safetensors'), 3000)],
    ];
    for (const [name, damage] of lose) {
      const folder = at(`lost-${name}`);
      let passes = 0;
      const onProgress = () => {
        if (++passes === 4) void damage(folder);
      };
      await expectError(() => captureCorpus(context, some, folder, { ...options, onProgress }), 'RUN_INVALID', /again/);
      await captureCorpus(context, some, folder, options);
      expect(await bytes(folder)).toEqual(await bytes(at('whole')));
      await damage(folder);
      expect((await captureCorpus(context, some, folder, options)).status).toBe('complete');
      expect(await bytes(folder)).toEqual(await bytes(at('whole')));
    }
  });

  test('makes anew a shard in which a byte was changed', async () => {
    const some = inputs(200);
    for (const name of ['states-00001.safetensors', 'states-00001.jsonl']) {
      const path = join(at('whole'), name);
      const before = await readFile(path);
      const changed = Buffer.from(before);
      const place = name.endsWith('jsonl') ? changed.indexOf('"tokens":[') + 10 : changed.length - 4;
      changed[place] = (changed[place] as number) ^ 1;
      await writeFile(path, changed);
      expect((await captureCorpus(context, some, at('whole'), options)).status).toBe('complete');
      expect((await readFile(path)).equals(before)).toBe(true);
    }
    const { sha256 } = (await openCorpus(at('whole'))).manifest.shards[1] as CorpusShard;
    expect(sha256?.states).toBe(
      createHash('sha256')
        .update(await readFile(join(at('whole'), 'states-00001.safetensors')))
        .digest('hex'),
    );
  });

  test('keeps what its prompts are labelled with, whatever that is', async () => {
    const fields = { 'a\u2028b': 'c\u2029\r\n\ud800', constructor: null, n: [1, { deep: '\u0000' }] };
    await captureCorpus(context, [{ prompt: { tokens: [5] }, fields }], at('labels'));
    expect((await all(at('labels'), 1))[0]?.prompt.fields).toEqual(fields);
  });

  test('is refused where it is damaged', async () => {
    await appendFile(at('whole/states-00000.jsonl'), '{');
    await expectError(() => all(at('whole'), 1), 'DATA_INVALID', /damaged/);
    await rm(at('whole/states-00000.safetensors'));
    await expectError(() => all(at('whole'), 1), 'FILE_NOT_FOUND', /states-00000/);
    await expectError(() => all(at('last'), 99), 'LAYER_OUT_OF_RANGE', /99/);
    await expectError(() => openCorpus(at('nowhere')), 'FILE_NOT_FOUND', /corpus\.json/);
    await writeFile(at('last/corpus.json'), '{}');
    await expectError(() => openCorpus(at('last')), 'DATA_INVALID', /manifest/);
    expect(existsSync(at('nowhere'))).toBe(false);
    const manifest = JSON.parse(await readFile(at('mean/corpus.json'), 'utf8'));
    const [shard] = manifest.shards;
    for (const wrong of [
      { shards: [null] },
      { shards: [{ ...shard, name: '../mean/states-00000' }] },
      { shards: [{ ...shard, rows: 1.5 }] },
      { shards: {} },
      { layers: ['constructor'] },
      { hooks: ['constructor'] },
      { hooks: undefined },
    ]) {
      await writeFile(at('mean/corpus.json'), JSON.stringify({ ...manifest, ...wrong }));
      await expectError(() => openCorpus(at('mean')), 'DATA_INVALID', /manifest/);
    }
    await writeFile(at('mean/corpus.json'), JSON.stringify(manifest));
    for (const rows of [[0, 2 ** 40], [-1, 1], [0, 0.5], [1, 0], {}, undefined]) {
      await writeFile(at('mean/states-00000.jsonl'), `${JSON.stringify({ index: 0, rows, fields: {} })}\n`);
      await expectError(() => all(at('mean'), 1), 'DATA_INVALID', /rows/);
    }
  });
});

test.each<[CorpusOptions, RegExp]>([
  [{ hooks: [] }, /No hooks/],
  [{ source: { n: 1n } }, /JSON/],
  [{ hooks: ['z', 'z'] }, /repeat: z, z/],
  [{ hooks: ['resid_post', 'pattern'] }, /'pattern'/],
  [{ hooks: ['attn_scores'], positions: 'all' }, /'attn_scores'/],
])('a corpus of %p is refused before its folder is made', async (options, message) => {
  await expectError(() => captureCorpus(context, inputs(3), at('refused'), options), 'INVALID_ARGUMENT', message);
  expect(existsSync(at('refused'))).toBe(false);
});

test('inputs that no corpus can hold are refused by their number', async () => {
  const loop: Record<string, unknown> = {};
  loop.self = loop;
  const prompt = { tokens: [5] };
  for (const wrong of [null, 7, 'a', { prompt, fields: { n: 1n } }, { prompt, fields: loop }]) {
    const list = [{ prompt }, wrong] as Parameters<typeof captureCorpus>[1];
    await expectError(() => captureCorpus(context, list, at(`w${Math.random()}`)), 'INVALID_ARGUMENT', /Input 1 /);
  }
});

test('a text of a prompt has positions', async () => {
  const prompt = await model.prompt('Q: Peru A: Lima Q: Chile A:');
  const said = (positions: number[]) => positions.map((p) => model.detokenize([prompt.tokens[p] as number])).join('');
  const last = prompt.positions({ text: 'A:' });
  expect(last.at(-1)).toBe(prompt.length - 1);
  const first = prompt.positions({ text: 'A:', occurrence: 1 });
  expect(said(first).trim()).toBe('A:');
  expect(first.at(-1)).toBeLessThan(last[0] as number);
  const { states } = await context.run({ prompt, capture: { positions: { text: 'Peru' } } });
  expect(said(states.positions as number[]).trim()).toBe('Peru');
});
