// Generation against passes over the same tokens; the tiny model's text is full of broken UTF-8, which streaming must survive.

import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Edge, Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { Generation } from '../../src/model/generate.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, randomVector, tokenPrompt } from './helpers.js';
import { BPE, writeVocabulary } from './vocabulary.js';

let model: Model;
let context: Context;
const folder = await temporaryFolder();
let prompts: Prompt[];
let edit: Intervention;

beforeAll(async () => {
  model = await load('llama');
  context = await model.createContext({ nCtx: 4096, kvType: 'f32' });
  const texts = ['Q:Sweden\nA:', 'The capital', 'hello', ' two', 'A'];
  prompts = await Promise.all(texts.map((text) => model.prompt(text)));
  edit = { hook: 'resid_post', layers: 1, positions: 'last', op: 'add', value: randomVector(model.info.nEmbd, 5, 3) };
});

const first = () => prompts[0] as Prompt;
const generate = async (row: PassRow, maxTokens = 20) => (await context.generate([row], { maxTokens }))[0];

/** Greedy continuation by whole passes; `everyStep` edits each new position as well. */
async function stepByStep(prompt: Prompt, n: number, interventions: Intervention[] = [], everyStep = false) {
  const tokens: number[] = [];
  for (let i = 0; i < n; i++) {
    const whole = await model.prompt({ tokens: [...prompt.tokens, ...tokens] });
    const positions = Array.from({ length: everyStep ? i + 1 : 1 }, (_, k) => prompt.length - 1 + k);
    const edits = interventions.map((intervention) => ({ ...intervention, positions }));
    const [row] = await context.pass([{ prompt: whole, interventions: edits, topK: 1 }]);
    const token = row?.top?.[0]?.token as number;
    if (model.isEnd(token)) break;
    tokens.push(token);
  }
  return tokens;
}

describe('greedy', () => {
  test('equals passes step by step, alone and with other rows', async () => {
    const expected = [];
    for (const prompt of prompts) expected.push(await stepByStep(prompt, 20));
    const together = await context.generate(
      prompts.map((prompt) => ({ prompt })),
      { maxTokens: 20 },
    );
    expect(together.map((row) => row.tokens)).toEqual(expected);
    for (const [i, prompt] of prompts.entries()) expect((await generate({ prompt }))?.tokens).toEqual(expected[i]);
    const decoder = new TextDecoder();
    expect(together.map((row) => row.text)).toEqual(expected.map((tokens) => decoder.decode(model.tokenBytes(tokens))));
  });

  test('under an intervention in the prompt', async () => {
    const patched = await generate({ prompt: first(), interventions: [edit] });
    expect(patched?.tokens).toEqual(await stepByStep(first(), 20, [edit]));
    expect(patched?.tokens).not.toEqual((await generate({ prompt: first() }))?.tokens);
    expect(patched?.interventions).toHaveLength(1);
  });

  test('with the intervention repeated at every step', async () => {
    const row = { prompt: first(), interventions: [{ ...edit, steps: 'all' }] } as const;
    const expected = await stepByStep(first(), 12, [edit], true);
    const rows = [{ prompt: first() }, row, { prompt: first(), interventions: [edit] }];
    const [plain, every, once] = await context.generate(rows, { maxTokens: 12 });
    expect(every?.tokens).toEqual(expected);
    expect(every?.tokens).not.toEqual(once?.tokens);
    expect(plain?.tokens).toEqual((await generate({ prompt: first() }, 12))?.tokens);
  });

  test('at every n-th generated token, and says where it fired', async () => {
    const every = { ...edit, steps: { every: 3 } } as const;
    const [answer] = await context.generate([{ prompt: first(), interventions: [every] }], { maxTokens: 10 });
    const { length } = first();
    const steps = answer.interventions.map(({ step, position }) => [step, position]);
    expect(steps).toEqual([3, 6, 9].filter((n) => n < answer.tokens.length).map((n) => [n, length + n - 1]));
    expect(answer.interventions.every(({ delta }) => delta > 0)).toBe(true);
    const tokens: number[] = [];
    for (let i = 0; i < answer.tokens.length; i++) {
      const positions = tokens.flatMap((_, k) => ((k + 1) % 3 === 0 ? [length + k] : []));
      const prompt = await model.prompt({ tokens: [...first().tokens, ...tokens] });
      const interventions = positions.length ? [{ ...edit, positions }] : [];
      tokens.push((await context.run({ prompt, interventions, topK: 1 })).top[0]?.token as number);
    }
    expect(answer.tokens).toEqual(tokens);
  });

  test('several layers with their own factors, over all positions, are one edit each', async () => {
    const { value } = edit as { value: Float32Array };
    const steer = { layers: [0, 1], positions: 'all', op: 'add', value, factor: [0.5, 2] } as const;
    const apart = [0.5, 2].map((factor, layer) => ({ ...steer, layers: layer, factor }));
    const together = await context.run({ prompt: first(), interventions: [steer], logits: 'last' });
    const single = await context.run({ prompt: first(), interventions: apart, logits: 'last' });
    expect(together.logits.data).toEqual(single.logits.data);
    expect(together.interventions).toHaveLength(2 * first().length);
  });

  test('steps that cannot be are refused', async () => {
    const ask = (change: Partial<Intervention>, maxTokens = 4) =>
      context.generate([{ prompt: first(), interventions: [{ ...edit, ...change }] }], { maxTokens });
    await expectError(() => ask({ positions: 0, steps: 'all' }), 'INTERVENTION_INVALID', /last position of the prompt/);
    await expectError(() => ask({ positions: 0, steps: 'generated' }), 'INTERVENTION_INVALID', /no positions/);
    await expectError(() => ask({ steps: { every: 0 } }), 'INTERVENTION_INVALID', /every: n/);
    await expectError(() => ask({ steps: 'generated' }, 1), 'INTERVENTION_INVALID', /one new token/);
    await expectError(() => ask({ steps: { every: 1 } }, 1), 'INTERVENTION_INVALID', /one new token/);
    for (const every of [4, 5, 1e9]) {
      const wanted = new RegExp(`every ${every}th never fires\\. Allow at least ${every + 1}`);
      await expectError(() => ask({ steps: { every } }), 'INTERVENTION_INVALID', wanted);
    }
    const edges: Edge[] = [{ layers: 0, from: 0, steps: { every: 4 } }];
    const late = () => context.generate([{ prompt: first(), edges }], { maxTokens: 4 });
    await expectError(late, 'INTERVENTION_INVALID', /never fires/);
    const rows = [{ prompt: first(), interventions: [{ ...edit, steps: 'generated' as const }] }];
    await expectError(() => context.pass(rows), 'INTERVENTION_INVALID', /generates no tokens/);
  });

  test('returns what the prompt pass was asked for, besides', async () => {
    const row = { prompt: first(), capture: { layers: [1], positions: 'last' }, logits: 'last', topK: 3 } as const;
    const [generated] = await context.generate([row], { maxTokens: 2 });
    const [passed] = await context.pass([row]);
    expect(generated).toMatchObject({ states: passed?.states, logits: passed?.logits, top: passed?.top });
    const [without] = await context.generate([{ prompt: first() }], { maxTokens: 2 });
    expect(without).not.toHaveProperty('top');
  });

  test('more rows than a batch holds, and more than fit the cache at once', async () => {
    const small = await model.createContext({ nCtx: 256, nUbatch: 4, kvType: 'f32' });
    const rows = await Promise.all(
      Array.from({ length: 30 }, async (_, i) => ({ prompt: await tokenPrompt(model, 3 + (i % 5), i) })),
    );
    const options = { maxTokens: 8 };
    const [a, b] = [await small.generate(rows, options), await context.generate(rows, options)];
    expect(a.map((row) => row.tokens)).toEqual(b.map((row) => row.tokens));
    await expectError(() => small.generate(rows, { maxTokens: 254 }), 'CONTEXT_OVERFLOW', /254 new tokens/);
    await small.dispose();
  });
});

describe('stop texts', () => {
  test('cut the text where they begin, also across tokens and where a character of several bytes completes them', async () => {
    let ascii = 0;
    let longer = 0;
    for (let seed = 1; seed <= 10; seed++) {
      const options = { maxTokens: 40, temperature: 2, sampleFrom: 288, seed };
      const [whole] = await context.generate([{ prompt: first() }], options);
      const text = whole?.text as string;
      for (let from = 1; from + 3 <= text.length; from++) {
        const stop = text.slice(from, from + 3);
        const inside = Buffer.byteLength(stop.slice(1)) > 2;
        if (text.indexOf(stop) !== from || stop.includes('\uFFFD') || (!inside && from % 3)) continue;
        if (inside) longer++;
        else ascii++;
        let streamed = '';
        const onText = (_: number, piece: string) => {
          streamed += piece;
        };
        const [row] = await context.generate([{ prompt: first() }], {
          ...options,
          stop: ['never there', stop],
          onText,
        });
        expect(row).toMatchObject({ text: text.slice(0, from), finish: 'stop' });
        expect(streamed).toBe(row?.text);
      }
    }
    expect(ascii).toBeGreaterThan(10);
    expect(longer).toBeGreaterThan(1);
  });

  test('the earliest of several counts, and an empty one is refused', async () => {
    const text = (await generate({ prompt: first() }, 30))?.text as string;
    const clean = Array.from(text.matchAll(/[\x20-\x7e]{2}/g), ([pair]) => pair);
    const [early, late] = [clean[0], clean.at(-1)] as [string, string];
    const [row] = await context.generate([{ prompt: first() }], { maxTokens: 30, stop: [late, early] });
    expect(row?.text).toBe(text.slice(0, Math.min(text.indexOf(early), text.indexOf(late))));
    await expectError(() => context.generate([{ prompt: first() }], { stop: [''] }), 'INVALID_ARGUMENT', /stop/);
  });
});

describe('streaming', () => {
  test('pieces add up to the text and never end inside a character', async () => {
    const pieces = prompts.map(() => [] as string[]);
    const rows = await context.generate(
      prompts.map((prompt) => ({ prompt })),
      {
        maxTokens: 60,
        temperature: 1.5,
        sampleFrom: 288,
        onText: (row, piece) => pieces[row]?.push(piece),
      },
    );
    expect(pieces.map((list) => list.join(''))).toEqual(rows.map((row) => row.text));
    for (const list of pieces) {
      expect(list.length).toBeGreaterThan(1);
      // what may still become a character is held back, except at the very end
      for (const piece of list.slice(0, -1)) expect(piece.endsWith('\uFFFD')).toBe(false);
    }
  });
});

describe('sampling', () => {
  const sampled = (seed: number, rows = prompts) =>
    context.generate(
      rows.map((prompt) => ({ prompt })),
      { maxTokens: 15, temperature: 1, seed },
    );

  test('is the same for a seed, another for another', async () => {
    const [a, b, c] = [await sampled(1), await sampled(1), await sampled(2)];
    expect(a).toEqual(b);
    expect(a.map((row) => row.tokens)).not.toEqual(c.map((row) => row.tokens));
  });

  test('a row does not depend on what stands behind it', async () => {
    const [alone] = await sampled(1, prompts.slice(0, 1));
    expect((await sampled(1))[0]?.tokens).toEqual(alone?.tokens);
  });

  test('from one token, or with a small share of the probability, is greedy', async () => {
    const greedy = (await context.generate([{ prompt: first() }], { maxTokens: 15 }))[0]?.tokens;
    for (const options of [{ sampleFrom: 1 }, { topP: 1e-9 }]) {
      const [row] = await context.generate([{ prompt: first() }], { maxTokens: 15, temperature: 1, ...options });
      expect(row?.tokens).toEqual(greedy);
    }
  });

  test('draws tokens as often as their probabilities say', async () => {
    const rows = Array.from({ length: 2000 }, () => ({ prompt: first() }));
    const [{ top = [] } = {}] = await context.pass([{ prompt: first(), topK: 5 }]);
    const drawn = await context.generate(rows, { maxTokens: 1, temperature: 1, sampleFrom: 288 });
    for (const { token, probability } of top) {
      const share = drawn.filter((row) => row.tokens[0] === token).length / rows.length;
      const deviation = Math.sqrt((probability * (1 - probability)) / rows.length);
      expect(Math.abs(share - probability)).toBeLessThan(4 * deviation);
    }
  });

  test.each<[string, object]>([
    ['temperature', { temperature: -1 }],
    ['temperature', { temperature: Number.NaN }],
    ['topP', { topP: 0 }],
    ['maxTokens', { maxTokens: 0 }],
    ['sampleFrom', { sampleFrom: 1.5 }],
  ])('a wrong %s is refused', async (name, options) => {
    await expectError(() => context.generate([{ prompt: first() }], options), 'INVALID_ARGUMENT', new RegExp(name));
  });
});

test('a stop text may hold control tokens, which the answer does not show', async () => {
  const model = await loadModel(writeVocabulary(join(folder, 'stop.gguf'), BPE), { device: 'cpu', threads: 1 });
  try {
    const context = await model.createContext({ nCtx: 128 });
    const [image] = model.tokenize('<image>');
    const row = { prompt: await model.prompt('Peru') };
    let seed = 0;
    let at = -1;
    let free: Generation | undefined;
    while (at < 1) {
      // A model of random weights says anything when it is hot enough.
      [free] = await context.generate([row], { maxTokens: 60, temperature: 50, sampleFrom: 300, seed: ++seed });
      at = free.tokens.indexOf(image as number);
      const shown = model.tokenBytes(free.tokens.slice(at - 1, at))[0] ?? 255;
      if (shown > 126 || shown < 32) at = -1;
    }
    const tokens = free?.tokens.slice(0, at + 1) as number[];
    const text = new TextDecoder().decode(model.tokenBytes(tokens));
    const options = { maxTokens: 60, temperature: 50, sampleFrom: 300, seed };
    const [stopped] = await context.generate([row], { ...options, stop: ['<image>'] });
    expect(stopped).toMatchObject({ finish: 'stop', text, tokens });
    const [before] = await context.generate([row], { ...options, stop: [`${text.at(-1)}<image>`] });
    expect(before).toMatchObject({ finish: 'stop', text: text.slice(0, -1), tokens });
  } finally {
    await model.dispose();
  }
});

test('a mark of byte order at the start of an answer or a text of tokens stays', async () => {
  const model = await load('qwen2-vl');
  expect(model.detokenize(model.tokenize('\uFEFFa'))).toBe('\uFEFFa');
});
