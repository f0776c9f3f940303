// Calls that take over what the cache holds, and rows that share what they can: the same answers as from an empty cache, and only
// what is new decoded.

import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { Context } from '../../src/model/context.js';
import type { GenerateOptions } from '../../src/model/generate.js';
import type { Model } from '../../src/model/model.js';
import type { PassRow } from '../../src/model/pass.js';
import type { DecodeJob } from '../../src/native/addon.js';
import { native } from '../../src/native/index.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import type { PromptPart } from '../../src/prompt/types.js';
import { Random } from '../../src/util/random.js';
import { expectError } from '../unit/helpers.js';
import { expectSame, load, logitsOf, picture, randomTokens, randomVector } from './helpers.js';

const { addon } = native();
let decoded: number;

beforeEach(() => {
  decoded = 0;
  const decode = addon.contextDecode;
  jest.spyOn(addon, 'contextDecode').mockImplementation(async (context, job: DecodeJob) => {
    await decode(context, job);
    decoded += job.outputs.length;
  });
});
afterEach(() => void jest.restoreAllMocks());

/** A generation, and how many rows of batches it took. */
async function counted(context: Context, row: PassRow, options: GenerateOptions = {}) {
  decoded = 0;
  const [generation] = await context.generate([row], { maxTokens: 6, keep: true, ...options });
  return { ...generation, decoded };
}

const FAMILIES = ['llama', 'gemma2', 'qwen2'];

test.each(FAMILIES)('a prompt that grows costs what is new, and answers as from an empty cache (%s)', async (name) => {
  const model = await load(name);
  const context = await model.createContext({ nCtx: 256, kvType: 'f32' });
  const fresh = await model.createContext({ nCtx: 256, kvType: 'f32' });
  let tokens = randomTokens(model, 20);
  let held = 0;
  for (let turn = 0; turn < 4; turn++) {
    const prompt = await model.prompt({ tokens });
    const kept = await counted(context, { prompt, logits: 'last' });
    const [alone] = await fresh.generate([{ prompt, logits: 'last' }], { maxTokens: 6 });
    expect(kept.tokens).toEqual(alone.tokens);
    const [a, b] = [kept.logits?.data as Float32Array, alone.logits?.data as Float32Array];
    // Gemma's GELU comes from a table of halves, where sums in another order may fall to the next entry.
    const bound = name === 'gemma2' ? 1e-3 : 1e-4;
    expect(Math.max(...a.map((x, i) => Math.abs(x - (b[i] as number))))).toBeLessThan(bound);
    expect(kept.reused).toBe(held);
    // the last token of an answer that ends by its length was not decoded
    const answer = kept.tokens.length - (kept.finish === 'end' ? 0 : 1);
    expect(kept.decoded).toBe(prompt.length - held + answer);
    held = prompt.length + answer;
    tokens = [...tokens, ...kept.tokens, ...randomTokens(model, 5, turn + 2)];
  }
});

test('of a prompt that parts from the last one only the common start is taken over', async () => {
  const model = await load('llama');
  const context = await model.createContext({ nCtx: 64, kvType: 'f32' });
  const fresh = await model.createContext({ nCtx: 64, kvType: 'f32' });
  const start = randomTokens(model, 20);
  for (let i = 0; i < 8; i++) {
    // more than the context holds together: what is cut away must make room
    const prompt = await model.prompt({ tokens: [...start.slice(0, 20 - i), ...randomTokens(model, 20, 10 + i)] });
    const kept = await counted(context, { prompt });
    const [alone] = await fresh.generate([{ prompt }], { maxTokens: 6 });
    expect(kept.tokens).toEqual(alone.tokens);
    expect(kept.reused).toBe(i === 0 ? 0 : 20 - i);
  }
  const shorter = await counted(context, { prompt: await model.prompt({ tokens: start.slice(0, 5) }) });
  expect(shorter.reused).toBe(4); // its last token is read anew
});

test.each([
  ['llava', 'square-a.png', 'square-b.png'],
  ['qwen2-vl', 'grid-a.png', 'grid-b.png'],
  ['gemma3', 'square-a.png', 'square-b.png'],
])('pictures are kept too (%s)', async (name, a, b) => {
  const model = await load(name, { vision: true });
  const context = await model.createContext({ nCtx: 1024, kvType: 'f32' });
  const fresh = await model.createContext({ nCtx: 1024, kvType: 'f32' });
  const parts = ['Q:', { image: picture(a) }, '\nA:x\n\nQ:', { image: picture(b) }, '\nA:'];
  const [one, two] = [await model.prompt(parts.slice(0, 3)), await model.prompt(parts)];
  await counted(context, { prompt: one });
  const kept = await counted(context, { prompt: two });
  const [alone] = await fresh.generate([{ prompt: two }], { maxTokens: 6 });
  expect(kept.tokens).toEqual(alone.tokens);
  expect(kept.reused).toBeGreaterThanOrEqual(one.length - 1);
  const other = await counted(context, { prompt: await model.prompt(['Q:', { image: picture(b) }, '\nA:']) });
  expect(other.reused).toBe(one.pictures[0]?.first);
});

describe('with interventions', () => {
  let model: Model;
  let context: Context;
  beforeEach(async () => {
    model = await load('llama');
    context = await model.createContext({ nCtx: 128, kvType: 'f32' });
  });
  const edit = (at: number, seed = 1) =>
    ({ hook: 'resid_post', layers: 1, positions: at, op: 'add', value: randomVector(64, seed, 3) }) as const;

  test('a patched position is taken over with its report, as long as the patch is the same', async () => {
    const fresh = await model.createContext({ nCtx: 128, kvType: 'f32' });
    const tokens = randomTokens(model, 30);
    const [first, second] = [await model.prompt({ tokens: tokens.slice(0, 20) }), await model.prompt({ tokens })];
    const one = await counted(context, { prompt: first, interventions: [edit(19)] });
    const row = { prompt: second, interventions: [edit(19), edit(29, 2)] };
    const two = await counted(context, row);
    const [alone] = await fresh.generate([row], { maxTokens: 6 });
    expect(two.reused).toBe(20);
    expect(two.tokens).toEqual(alone.tokens);
    expect(two.interventions?.[0]).toEqual(one.interventions?.[0]);
    expect(two.interventions?.[1]?.delta).toBeGreaterThan(0);

    const changed = await counted(context, { prompt: second, interventions: [edit(19, 3), edit(29, 2)] });
    expect(changed.reused).toBe(19);
    const [expected] = await fresh.generate([{ prompt: second, interventions: [edit(19, 3), edit(29, 2)] }], {
      maxTokens: 6,
    });
    expect(changed.tokens).toEqual(expected.tokens);
  });

  test('an answer patched at every step is not taken for an unpatched one', async () => {
    const prompt = await model.prompt({ tokens: randomTokens(model, 20) });
    const row = { prompt, interventions: [{ ...edit(19), positions: 'last', steps: 'all' as const }] };
    const { tokens } = await counted(context, row);
    const longer = await model.prompt({ tokens: [...prompt.tokens, ...tokens, 9] });
    expect((await counted(context, { prompt: longer, interventions: [edit(19)] })).reused).toBe(20);
  });

  test('a position that is read is computed', async () => {
    const prompt = await model.prompt({ tokens: randomTokens(model, 20) });
    await counted(context, { prompt });
    const read = await counted(context, { prompt, capture: { layers: [0], positions: [7] } });
    expect(read.reused).toBe(7);
    expect(read.states?.data.some((x) => x !== 0)).toBe(true);
  });
});

describe('a call of many rows takes over what it shares with the row that was kept', () => {
  const reading = { logits: 'last', capture: { layers: [1], positions: 'last' } } as const;
  const worst = (a?: Float32Array, b?: Float32Array) =>
    Math.max(...(a ?? []).map((x, i) => Math.abs(x - (b?.[i] as number))));

  const shown = (one: string, other: string): PromptPart[][] => [
    ['Q:', { image: picture(one) }, '\nA:'],
    ['Q:', { image: picture(other) }, '\nA:'],
    ['Q:', { image: picture(one) }, '\nA:x\n\nQ:', { image: picture(other) }, '\nA:'],
    ['Q:none\nA:'],
  ];
  const written = ['Q:one two three\nA:', 'Q:one two\nA:', 'B', 'Q:one two three\nA:x\n\nQ:four\nA:'];

  test.each<[string, { vision?: boolean }, PromptPart[][]]>([
    ['llama', {}, written.map((text) => [text])],
    ['qwen2-vl', { vision: true }, shown('grid-a.png', 'grid-b.png')],
    ['gemma3', { vision: true }, shown('square-a.png', 'square-b.png')],
  ])('%s', async (name, options, sources) => {
    const model = await load(name, options);
    const context = await model.createContext({ nCtx: 512, kvType: 'f32' });
    const fresh = await model.createContext({ nCtx: 512, kvType: 'f32' });
    const prompts = await Promise.all(sources.map((parts) => model.prompt(parts)));
    const [own] = prompts as [Prompt];
    const value = randomVector(model.info.nEmbd, 3, 3);
    const edit = { hook: 'resid_post', layers: 1, positions: 'last', op: 'replace', value } as const;
    const rows = [
      ...prompts.map((prompt) => ({ prompt, ...reading })),
      { prompt: own, interventions: [edit], logits: 'last' } as const,
    ];

    decoded = 0;
    const expected = await fresh.generate(rows, { maxTokens: 4 });
    const whole = decoded;
    const [before] = await context.pass([{ prompt: own, ...reading }], { keep: true });
    decoded = 0;
    const found = await context.generate(rows, { maxTokens: 4 });
    // All but the last position, which is read.
    expect(decoded).toBe(whole - (own.length - 1));
    // Gemma's GELU comes from a table of halves, where sums in another order may fall to the next entry.
    const bound = name === 'gemma3' ? 3e-3 : 1e-3;
    for (const [i, { tokens, logits, states, interventions }] of found.entries()) {
      expect(tokens).toEqual(expected[i]?.tokens);
      expect(worst(logits?.data, expected[i]?.logits?.data)).toBeLessThan(bound);
      if (states) expect(worst(states.data, expected[i]?.states?.data)).toBeLessThan(1e-3);
      for (const [j, { delta }] of interventions.entries()) {
        expect(delta).toBeCloseTo(expected[i]?.interventions[j]?.delta as number, 3);
      }
    }
    expect(worst(found[0]?.states?.data, before.states?.data)).toBeLessThan(1e-3);

    // And what a pass takes over is the same.
    await context.pass([{ prompt: own }], { keep: true });
    const passed = await context.pass(rows);
    for (const [i, { logits }] of passed.entries()) {
      expect(worst(logits?.data, expected[i]?.logits?.data)).toBeLessThan(bound);
    }
  });

  test.each([1, 3])(
    'several rows that were kept, each by those that begin like it (call after call, %d rows kept)',
    async (n) => {
      const model = await load('llama');
      const context = await model.createContext({ nCtx: 1024, kvType: 'f32' });
      const fresh = await model.createContext({ nCtx: 1024, kvType: 'f32' });
      const start = randomTokens(model, 6);
      const prompts = await Promise.all(
        [1, 2, 3].map((seed) => model.prompt({ tokens: [...start, ...randomTokens(model, 9, seed)] })),
      );
      const value = randomVector(64, 3, 3);
      // 15 tokens each: six that all share, eight of their own, one that is read.
      const rows = prompts.flatMap((prompt) => [
        { prompt, ...reading },
        { prompt, interventions: [{ layers: 0, positions: 'last', op: 'replace', value } as const], ...reading },
      ]);
      const expected = await fresh.generate(rows, { maxTokens: 3 });
      for (let call = 0; call < 3; call++) {
        await context.pass(
          prompts.slice(0, n).map((prompt) => ({ prompt })),
          { keep: true },
        );
        decoded = 0;
        const found = await context.pass(rows);
        expect(decoded).toBe(6 + 3 * 8 - (6 + n * 8) + 6);
        for (const [i, { logits, states }] of found.entries()) {
          expect(worst(logits?.data, expected[i]?.logits?.data)).toBeLessThan(1e-3);
          expect(worst(states?.data, expected[i]?.states?.data)).toBeLessThan(1e-3);
        }
        await context.pass(
          prompts.map((prompt) => ({ prompt })),
          { keep: true },
        );
        const generated = await context.generate(rows, { maxTokens: 3 });
        expect(generated.map(({ tokens }) => tokens)).toEqual(expected.map(({ tokens }) => tokens));
      }
      // More rows than there are sequences left: nothing is taken over, nothing is wrong.
      await context.pass(
        prompts.map((prompt) => ({ prompt })),
        { keep: true },
      );
      const many = await context.pass(Array.from({ length: 256 }, (_, i) => rows[i % rows.length] as (typeof rows)[0]));
      for (const [i, { logits }] of many.entries()) {
        expect(worst(logits?.data, expected[i % rows.length]?.logits?.data)).toBeLessThan(1e-3);
      }
    },
  );

  test('all of the sequences but those that were kept', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 1024, kvType: 'f32' });
    const prompt = await model.prompt({ tokens: randomTokens(model, 40) });
    const rows = Array.from({ length: 256 }, (_, i) => ({
      prompt,
      interventions: [{ layers: i % 3, positions: 'last', op: 'scale', factor: 1 + i / 1000 } as const],
    }));
    await context.pass([{ prompt }], { keep: true });
    decoded = 0;
    await context.pass(rows);
    expect(decoded).toBe(255 + 40); // the last of 256 is a wave of its own
  });

  test('with the reports of edits that all of them have', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 128, kvType: 'f32' });
    const tokens = randomTokens(model, 30);
    const [short, long] = [await model.prompt({ tokens: tokens.slice(0, 20) }), await model.prompt({ tokens })];
    const at = (position: number, seed: number) =>
      ({ hook: 'resid_post', layers: 1, positions: position, op: 'add', value: randomVector(64, seed, 3) }) as const;
    const [kept] = await context.pass([{ prompt: short, interventions: [at(9, 1)] }], { keep: true });
    decoded = 0;
    const row = (seed: number) => ({ prompt: long, interventions: [at(9, 1), at(29, seed)], topK: 1 });
    const both = await context.pass([row(2), row(3)]);
    expect(decoded).toBe(9 + 2);
    expect(kept.interventions[0]?.delta).toBeGreaterThan(0);
    for (const { interventions } of both) {
      expect(interventions[0]).toEqual(kept.interventions[0]);
      expect(interventions[1]?.delta).toBeGreaterThan(0);
    }
    const other = await context.pass([{ ...row(2), interventions: [at(9, 4)] }]);
    expect(other[0].interventions[0]?.delta).not.toBe(kept.interventions[0]?.delta);
  });
});

test('a call without keep leaves an empty cache; one that is refused what there was', async () => {
  const model = await load('llama');
  const context = await model.createContext({ nCtx: 64, kvType: 'f32' });
  const prompt = await model.prompt({ tokens: randomTokens(model, 20) });
  await counted(context, { prompt });
  await expectError(() => counted(context, { prompt }, { maxTokens: 60 }), 'CONTEXT_OVERFLOW', /60 new tokens/);
  expect((await counted(context, { prompt })).reused).toBe(19);
  await context.pass([{ prompt }]);
  expect((await counted(context, { prompt })).reused).toBe(0);
  await context.generate([{ prompt }], { maxTokens: 2 });
  expect((await counted(context, { prompt })).reused).toBe(0);
  const two = [{ prompt }, { prompt }];
  await expectError(() => context.generate(two, { keep: true }), 'INVALID_ARGUMENT', /one answer, not 2/);
});

test.each(['generate', 'pass'] as const)(
  'a call that is aborted before it decodes anything leaves what was kept (%s)',
  async (method) => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 256, kvType: 'f32' });
    const fresh = await model.createContext({ nCtx: 256, kvType: 'f32' });
    const tokens = randomTokens(model, 30);
    const [short, long] = [await model.prompt({ tokens: tokens.slice(0, 20) }), await model.prompt({ tokens })];
    await context.generate([{ prompt: short }], { maxTokens: 1, keep: true });
    const abort = new AbortController();
    const options = { keep: true, signal: abort.signal, onProgress: () => abort.abort() };
    const aborted =
      method === 'pass'
        ? context.pass([{ prompt: long }], options)
        : context.generate([{ prompt: long }], { maxTokens: 4, ...options });
    await Promise.allSettled([aborted]);
    const rows = [12, 13].map((token) => ({ prompt: short.append([11, token]), logits: 'last' as const }));
    decoded = 0;
    const found = await context.pass(rows);
    const expected = await fresh.pass(rows);
    for (const [i, { logits }] of found.entries()) {
      const difference = logits.data.map((x, j) => Math.abs(x - (expected[i]?.logits.data[j] as number)));
      expect(Math.max(...difference)).toBeLessThan(1e-3);
    }
  },
);

test('rows that share most of a long prompt stay together; prompts that share nothing need not', async () => {
  const model = await load('llama');
  const context = await model.createContext({ nCtx: 2048, kvType: 'f32' });
  const prompt = await model.prompt({ tokens: randomTokens(model, 1000) }); // many times n_embd
  const sweep = Array.from({ length: 40 }, (_, i) => {
    const value = randomVector(64, i, 3);
    return {
      prompt,
      interventions: [{ hook: 'resid_post', layers: i % 3, positions: 'last', op: 'replace', value } as const],
    };
  });
  decoded = 0;
  await context.pass(sweep);
  expect(decoded).toBe(999 + 40);
  decoded = 0;
  const answers = await context.generate(sweep, { maxTokens: 2 });
  const answered = answers.filter(({ tokens, finish }) => tokens.length + Number(finish === 'end') > 1).length;
  expect(decoded).toBe(999 + 40 + answered);
});

describe.each(['gemma2', 'gemma3'])('rows longer than the sliding window of %s', (name) => {
  // llama.cpp takes cells outside of the window for other rows, also while there are empty ones.
  test('of several, a beginning that others may have written into is computed again', async () => {
    const model = await load(name);
    const random = new Random(5, name);
    const below = (n: number) => Math.floor(random.uniform() * n);
    const some = (n: number) => Array.from({ length: n }, () => 5 + below(200));
    const rowsOf = (...lists: number[][]) => lists.map((tokens): PassRow => ({ prompt: { tokens }, logits: 'last' }));
    for (let round = 0; round < 20; round++) {
      await using context = await model.createContext({ nCtx: 128, kvType: 'f32' });
      await using fresh = await model.createContext({ nCtx: 128, kvType: 'f32' });
      const [first, second, third] = [some(30), some(36), some(20)];
      const longer = [...second, ...some(10)];
      await context.pass(rowsOf(first, second, third), { keep: true });
      await context.pass(rowsOf(longer, ...(round % 2 ? [[...first, ...some(10)]] : [])), { keep: true });
      const longest = [...longer, ...some(10)];
      await context.pass(rowsOf(longest, some(20)), { keep: true });
      const branch = [...longer.slice(0, 10 + below(26)), ...some(3)];
      // By itself, or beside one that goes on from the end.
      const asked = rowsOf(branch, ...(round % 4 < 2 ? [] : [[...longest, ...some(2)]]));
      const [kept, computed] = [await context.pass(asked), await fresh.pass(asked)];
      for (const i of asked.keys()) {
        expectSame(logitsOf(kept[i]), logitsOf(computed[i]), model.info.nVocab, 'logits');
      }
    }
  });

  test('one alone is cut and goes on', async () => {
    const model = await load(name);
    const context = await model.createContext({ nCtx: 128, kvType: 'f32' });
    const fresh = await model.createContext({ nCtx: 128, kvType: 'f32' });
    const tokens = randomTokens(model, 60);
    await counted(context, { prompt: { tokens } });
    for (const length of [50, 30, 40]) {
      const prompt = { tokens: [...tokens.slice(0, length), 7] };
      const { decoded: _, reused, ...answer } = await counted(context, { prompt });
      expect(reused).toBe(length === 40 ? 30 : length);
      expect(answer.tokens).toEqual((await fresh.generate([{ prompt }], { maxTokens: 6 }))[0].tokens);
    }
  });
});

describe('an abort', () => {
  test('ends the answer, and what was decoded is taken over', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 256, kvType: 'f32' });
    const prompt = await model.prompt({ tokens: randomTokens(model, 20) });
    const sampled = { maxTokens: 30, temperature: 2, seed: 4 };
    const whole = await counted(context, { prompt }, sampled);
    expect(whole.tokens?.length).toBeGreaterThan(12);
    await context.pass([{ prompt }]);
    const stop = new AbortController();
    let shown = '';
    const onText = (_: number, text: string) => {
      shown += text;
      if (shown.length > 5) stop.abort();
    };
    const cut = await counted(context, { prompt }, { ...sampled, signal: stop.signal, onText });
    expect(cut.finish).toBe('aborted');
    expect(cut.text).toBe(shown);
    expect(whole.tokens?.slice(0, cut.tokens?.length)).toEqual(cut.tokens);
    const longer = await model.prompt({ tokens: [...prompt.tokens, ...(whole.tokens ?? [])] });
    const rest = await counted(context, { prompt: longer });
    expect(rest.reused).toBe(20 + (cut.tokens?.length ?? 0) - 1);
  });

  test('at the last token leaves everything to be taken over', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 256, kvType: 'f32' });
    const prompt = await model.prompt({ tokens: randomTokens(model, 20) });
    const sampled = { maxTokens: 12, temperature: 2, seed: 4 };
    const { text, tokens = [] } = await counted(context, { prompt }, sampled);
    await context.pass([{ prompt }]);
    const stop = new AbortController();
    let shown = '';
    const onText = (_: number, more: string) => {
      shown += more;
      if (shown === text) stop.abort();
    };
    expect((await counted(context, { prompt }, { ...sampled, signal: stop.signal, onText })).tokens).toEqual(tokens);
    expect(stop.signal.aborted).toBe(true);
    const longer = await model.prompt({ tokens: [...prompt.tokens, ...tokens] });
    expect((await counted(context, { prompt: longer })).reused).toBe(20 + tokens.length - 1);
  });

  test('of the prompt is an error, and what was decoded is taken over', async () => {
    const model = await load('llama');
    const context = await model.createContext({ nCtx: 256, nUbatch: 8, kvType: 'f32' });
    const prompt = await model.prompt({ tokens: randomTokens(model, 60) });
    const stop = new AbortController();
    const onProgress = ({ done }: { done: number }) => void (done >= 24 && stop.abort());
    await expectError(() => counted(context, { prompt }, { signal: stop.signal, onProgress }), 'ABORTED', /aborted/);
    const again = await counted(context, { prompt });
    expect(again.reused).toBe(24);
    const fresh = await model.createContext({ nCtx: 256, kvType: 'f32' });
    expect(again.tokens).toEqual((await fresh.generate([{ prompt }], { maxTokens: 6 }))[0].tokens);
  });
});
