// What a pass must not depend on: how rows are batched, what other rows do, and where the KV cache keeps things.

import { beforeAll, describe, expect, test } from '@jest/globals';
import type { Intervention } from '../../src/hooks/types.js';
import type { Context } from '../../src/model/context.js';
import type { ContextOptions } from '../../src/model/context-options.js';
import type { Model } from '../../src/model/model.js';
import type { PassResult, PassRow } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { expectError } from '../unit/helpers.js';
import {
  argmax,
  cosine,
  expectSame,
  load,
  logitsOf,
  randomTokens,
  randomVector,
  statesOf,
  tokenPrompt,
} from './helpers.js';

const patch = (layer: number, positions: Intervention['positions'], value: Float32Array): Intervention => ({
  hook: 'resid_post',
  layers: layer,
  positions,
  op: 'replace',
  value,
});
const everything = { capture: { layers: 'all', positions: 'all' }, logits: 'all' } as const;

function expectSameResult(actual: PassResult | undefined, expected: PassResult | undefined, model: Model) {
  expectSame(statesOf(actual), statesOf(expected), model.info.nEmbd, 'states');
  expectSame(logitsOf(actual), logitsOf(expected), model.info.nVocab, 'logits');
}

// gemma2 and gemma3 have windows of a few tokens in every other layer, phi3 fused matrices, gpt-neox parallel blocks.
describe.each(['llama', 'qwen2', 'gemma2', 'gemma3', 'gpt-neox', 'phi3', 'persimmon'])('%s', (name) => {
  let model: Model;
  let context: Context;
  let vector: Float32Array;
  let long: Prompt;

  const contextOf = (options: ContextOptions) =>
    model.createContext({ nCtx: 512, kvType: 'f32', flashAttention: 'off', ...options });
  const only = async (row: PassRow, on = context) => (await on.pass([row]))[0] as PassResult;

  beforeAll(async () => {
    model = await load(name);
    context = await contextOf({});
    long = await tokenPrompt(model, 90);
    const [row] = await context.pass([
      { prompt: await tokenPrompt(model, 20, 9), capture: { layers: [1], positions: 'last' } },
    ]);
    vector = statesOf(row);
  });

  describe('one row', () => {
    test('replacing states by themselves changes no bit of the logits', async () => {
      for (const layer of [0, 1, model.info.nLayers - 1]) {
        const capture = { layers: [layer], positions: [3, 40, -1] };
        const plain = await only({ prompt: long, capture, logits: 'all' });
        const { nEmbd } = model.info;
        const interventions = capture.positions.map((position, i) =>
          patch(layer, position, statesOf(plain).slice(i * nEmbd, (i + 1) * nEmbd)),
        );
        // Edits of the last layer compute that layer for three rows in both runs.
        const patched = await only({ prompt: long, capture, logits: 'all', interventions });
        expect(logitsOf(patched)).toEqual(logitsOf(plain));
        expect(statesOf(patched)).toEqual(statesOf(plain));
        expect(patched.interventions.map((report) => report.delta)).toEqual([0, 0, 0]);
      }
    });

    test('zero and then restore changes no bit, zero alone does, and the change is reported', async () => {
      const capture = { layers: [1], positions: [-1] };
      const plain = await only({ prompt: long, capture, logits: 'last' });
      const zero: Intervention = { hook: 'resid_post', layers: 1, positions: -1, op: 'zero' };
      const restored = await only({
        prompt: long,
        capture,
        logits: 'last',
        interventions: [zero, patch(1, -1, statesOf(plain))],
      });
      expect(logitsOf(restored)).toEqual(logitsOf(plain));
      const zeroed = await only({ prompt: long, capture, logits: 'last', interventions: [zero] });
      expect(statesOf(zeroed).every((x) => x === 0)).toBe(true);
      expect(logitsOf(zeroed)).not.toEqual(logitsOf(plain));
      const norm = Math.hypot(...statesOf(plain));
      expect(zeroed.interventions[0]?.delta).toBeCloseTo(norm, 3);
      expect(restored.interventions.map((report) => report.op)).toEqual(['zero', 'replace']);
    });

    test('scale and add do what they say', async () => {
      const capture = { layers: [1], positions: [-1] };
      const h = statesOf(await only({ prompt: long, capture }));
      const edited = async (interventions: Intervention[]) =>
        statesOf(await only({ prompt: long, capture, interventions }));
      const at = { hook: 'resid_post', layers: 1, positions: -1 } as const;
      expect(await edited([{ ...at, op: 'scale', factor: -2 }])).toEqual(h.map((x) => -2 * x));
      expect(await edited([{ ...at, op: 'add', value: vector }])).toEqual(h.map((x, i) => x + (vector[i] as number)));
      const half = await edited([{ ...at, op: 'add', value: vector, factor: 0.5 }]);
      expect(half).toEqual(h.map((x, i) => x + 0.5 * (vector[i] as number)));
      const both = await edited([
        { ...at, op: 'scale', factor: 2 },
        { ...at, op: 'add', value: vector },
      ]);
      expect(both).toEqual(h.map((x, i) => Math.fround(2 * x) + (vector[i] as number)));
    });

    test('a patch moves no position before it and no layer below it', async () => {
      const plain = await only({ prompt: long, ...everything });
      const patched = await only({ prompt: long, ...everything, interventions: [patch(1, 50, vector)] });
      const { nEmbd, nLayers } = model.info;
      const at = (result: PassResult, layer: number, position: number) =>
        statesOf(result).subarray(
          (layer * long.length + position) * nEmbd,
          (layer * long.length + position + 1) * nEmbd,
        );
      for (let layer = 0; layer < nLayers; layer++) {
        for (let position = 0; position < long.length; position++) {
          const same = cosine(at(patched, layer, position), at(plain, layer, position));
          if (position < 50 || layer < 1 || (layer === 1 && position > 50)) expect(same).toBeGreaterThan(1 - 1e-5);
          if (layer === 1 && position === 50) expect(at(patched, 1, 50)).toEqual(vector);
        }
      }
      expect(at(patched, nLayers - 1, 51)).not.toEqual(at(plain, nLayers - 1, 51));
    });

    test.each([1, 3, 7, 32, 64])('is the same in pieces of %i positions', async (nUbatch) => {
      const pieces = await contextOf({ nUbatch });
      for (const interventions of [
        [],
        [patch(0, [31, 32, 33], vector), patch(model.info.nLayers - 1, [63, -1], vector)],
      ]) {
        const row = { prompt: long, interventions, ...everything };
        expectSameResult(await only(row, pieces), await only(row), model);
      }
      await pieces.dispose();
    });

    test.each([
      ['flash attention', { flashAttention: 'on', kvType: 'f16' }, 0.9999],
      ['a KV cache of halves', { flashAttention: 'off', kvType: 'f16' }, 0.9999],
      ['flash attention on f32', { flashAttention: 'on', kvType: 'f32' }, 0.9999],
    ] as const)('is close with %s', async (_, options, bound) => {
      const other = await contextOf(options);
      const row = { prompt: long, interventions: [patch(1, -1, vector)], ...everything };
      const [a, b] = [await only(row, other), await only(row)];
      for (const [values, expected, width] of [
        [statesOf(a), statesOf(b), model.info.nEmbd],
        [logitsOf(a), logitsOf(b), model.info.nVocab],
      ] as const) {
        for (let at = 0; at < expected.length; at += width) {
          expect(cosine(values.subarray(at, at + width), expected.subarray(at, at + width))).toBeGreaterThan(bound);
        }
      }
      await other.dispose();
    });

    test('the last layer reads the same with and without logits, at any positions', async () => {
      const last = model.info.nLayers - 1;
      const whole = await only({ prompt: long, ...everything });
      const { nEmbd } = model.info;
      const row = (position: number) =>
        statesOf(whole).subarray((last * long.length + position) * nEmbd, (last * long.length + position + 1) * nEmbd);
      for (const logits of [undefined, 'last', [5, 60], 'all'] as const) {
        const positions = [60, 0, 89];
        const result = await only({ prompt: long, capture: { layers: [last], positions }, logits });
        const expected = Float32Array.from(positions.flatMap((position) => [...row(position)]));
        expectSame(statesOf(result), expected, nEmbd, 'states');
        expect(result.states).toMatchObject({ shape: [1, 3, nEmbd], layers: [last], positions });
        expect(result.states?.tokens).toEqual(positions.map((position) => long.tokens[position]));
        expect(result.logits === undefined).toBe(logits === undefined);
      }
    });
  });

  describe('many rows', () => {
    test('with different interventions equal the rows one by one, in their order', async () => {
      const prompts = await Promise.all([1, 2, 3, 4, 5].map((seed) => tokenPrompt(model, 10 + 7 * seed, seed)));
      const rows: PassRow[] = prompts.flatMap((prompt, i) => [
        { prompt, ...everything },
        { prompt, ...everything, interventions: [patch(i % model.info.nLayers, -1, vector)] },
        {
          prompt,
          ...everything,
          interventions: [
            { hook: 'resid_post', layers: 0, positions: [2, 5], op: 'zero' },
            { hook: 'resid_post', layers: 1, positions: 'last', op: 'scale', factor: 0.5 + i },
          ],
        },
      ]);
      const together = await context.pass(rows);
      for (const [i, row] of rows.entries()) {
        const alone = await only(row);
        expectSameResult(together[i], alone, model);
        const deltas = (result?: PassResult) => result?.interventions.map((report) => report.delta) as number[];
        deltas(together[i]).forEach((delta, k) => void expect(delta).toBeCloseTo(deltas(alone)[k] as number, 2));
      }
    });

    test('with equal starts and different edits in the middle equal the rows one by one', async () => {
      const edits = [
        [],
        [patch(0, 40, vector)],
        [patch(1, 40, vector)],
        [patch(0, 41, vector)],
        [patch(0, 40, vector)],
      ];
      const rows = edits.map((interventions) => ({ prompt: long, interventions, ...everything }));
      const together = await context.pass(rows);
      for (const [i, row] of rows.entries()) expectSameResult(together[i], await only(row), model);
      expect(together[4]).toEqual(together[1]); // one computation, two readers
      expect(logitsOf(together[2])).not.toEqual(logitsOf(together[1]));
    });

    test('that are starts of other rows give what the longest gives there', async () => {
      const whole = await only({ prompt: long, logits: 'all' });
      const lengths = [90, 1, 30, 31, 89, 30];
      const rows = await Promise.all(
        lengths.map(async (n) => ({
          prompt: await model.prompt({ tokens: long.tokens.slice(0, n) }),
          logits: 'last' as const,
          topK: 2,
        })),
      );
      const results = await context.pass(rows);
      for (const [i, n] of lengths.entries()) {
        const expected = logitsOf(whole).subarray((n - 1) * model.info.nVocab, n * model.info.nVocab);
        expectSame(logitsOf(results[i]), expected, model.info.nVocab, 'logits');
        expect(results[i]?.top?.[0]?.token).toBe(argmax(expected));
      }
    });

    test('sweeping all layers over the last token equals the naive sweep', async () => {
      const rows: PassRow[] = Array.from({ length: model.info.nLayers }, (_, layer) => ({
        prompt: long,
        interventions: [patch(layer, 'last', vector)],
        logits: 'last',
      }));
      const shared = await context.pass(rows);
      for (const [layer, row] of rows.entries()) {
        expectSame(logitsOf(shared[layer]), logitsOf(await only(row)), model.info.nVocab, 'logits');
      }
    });
  });
});

describe('sizes', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load('llama');
  });

  test('more rows than llama.cpp has sequences', async () => {
    const context = await model.createContext({ nCtx: 2048, kvType: 'f32' });
    const start = randomTokens(model, 12);
    const rows: PassRow[] = [];
    for (let i = 0; i < 600; i++) {
      const prompt = await model.prompt({ tokens: [...start, 5 + (i % 280), 5 + Math.floor(i / 280)] });
      const interventions = i % 3 ? [patch(i % 3, -1, randomVector(model.info.nEmbd, i))] : [];
      rows.push({ prompt, interventions, logits: 'last' });
    }
    const progress: number[] = [];
    const results = await context.pass(rows, { onProgress: ({ done, total }) => void progress.push(done / total) });
    expect(progress.at(-1)).toBe(1);
    for (let i = 0; i < 600; i += 29) {
      const [alone] = await context.pass([rows[i] as PassRow]);
      expectSame(logitsOf(results[i]), logitsOf(alone), model.info.nVocab, 'logits');
    }
    await context.dispose();
  });

  test('a prompt of several default ubatches, and rows that together exceed the cache', async () => {
    const context = await model.createContext({ nCtx: 1300, kvType: 'f32' });
    const small = await model.createContext({ nCtx: 1300, nUbatch: 100, kvType: 'f32' });
    const prompts = await Promise.all([1200, 1290, 3, 700, 700].map((n, i) => tokenPrompt(model, n, i)));
    const rows = prompts.map(
      (prompt) => ({ prompt, logits: 'last', capture: { layers: [0, 2], positions: [0, -1] } }) as const,
    );
    const [a, b] = [await context.pass(rows), await small.pass(rows)];
    for (const i of rows.keys()) expectSameResult(a[i], b[i], model);
    await context.dispose();
    await small.dispose();
  });

  test('a prompt longer than the context is refused before anything runs, the longest that fits runs', async () => {
    const context = await model.createContext({ nCtx: 256 });
    await expectError(
      async () => context.pass([{ prompt: await tokenPrompt(model, 257) }]),
      'CONTEXT_OVERFLOW',
      /257 positions does not fit a context of 256. Make the context larger/,
    );
    const [row] = await context.pass([{ prompt: await tokenPrompt(model, 256), topK: 1 }]);
    expect(row?.top).toHaveLength(1);
    await context.dispose();
  });

  test('top tokens are those of the logits, with the softmax over the whole vocabulary', async () => {
    const context = await model.createContext({ nCtx: 256 });
    const [row] = await context.pass([{ prompt: await tokenPrompt(model, 30), logits: 'last', topK: 288 }]);
    const logits = logitsOf(row);
    const order = Array.from(logits.keys()).sort((x, y) => (logits[y] as number) - (logits[x] as number) || x - y);
    expect(row?.top?.map((score) => score.token)).toEqual(order);
    expect(row?.top?.map((score) => score.logit)).toEqual(order.map((token) => logits[token]));
    expect(row?.top?.reduce((sum, score) => sum + score.probability, 0)).toBeCloseTo(1, 5);
    await context.dispose();
  });
});

describe('what is refused', () => {
  let model: Model;
  let context: Context;
  let prompt: Prompt;
  const value = new Float32Array(64);
  beforeAll(async () => {
    model = await load('llama');
    context = await model.createContext({ nCtx: 256 });
    prompt = await tokenPrompt(model, 8);
  });

  test.each<[string, Partial<PassRow>, string, RegExp]>([
    ['a layer past the end', { interventions: [patch(3, -1, value)] }, 'LAYER_OUT_OF_RANGE', /layers 0 to 2/],
    ['a negative layer', { capture: { layers: [-1], positions: 'last' } }, 'LAYER_OUT_OF_RANGE', /layers 0 to 2/],
    ['a position past the end', { interventions: [patch(0, 8, value)] }, 'POSITION_OUT_OF_RANGE', /0 to 7/],
    ['a position before the start', { logits: [-9] }, 'POSITION_OUT_OF_RANGE', /-1 to -8/],
    ['a mark that is not there', { interventions: [patch(0, 'delimiter', value)] }, 'POSITION_OUT_OF_RANGE', /no mark/],
    ['a vector of another width', { interventions: [patch(0, 0, new Float32Array(63))] }, 'INTERVENTION_INVALID', /63/],
    [
      'NaN',
      {
        interventions: [
          patch(
            0,
            0,
            value.map(() => Number.NaN),
          ),
        ],
      },
      'INTERVENTION_INVALID',
      /NaN/,
    ],
    [
      'no value',
      { interventions: [{ hook: 'resid_post', layers: 0, positions: 0, op: 'add' }] },
      'INTERVENTION_INVALID',
      /value/,
    ],
    [
      'no factor',
      { interventions: [{ hook: 'resid_post', layers: 0, positions: 0, op: 'scale' }] },
      'INTERVENTION_INVALID',
      /factor/,
    ],
    [
      'another hook',
      { interventions: [{ ...patch(0, 0, value), hook: 'hook_mlp_out' as 'resid_post' }] },
      'HOOK_UNSUPPORTED',
      /no hook 'hook_mlp_out'/,
    ],
    [
      'another operation',
      { interventions: [{ ...patch(0, 0, value), op: 'swap' as 'zero' }] },
      'INTERVENTION_INVALID',
      /swap/,
    ],
    ['a negative topK', { topK: -1 }, 'INVALID_ARGUMENT', /top-k/],
    ['more than the vocabulary', { topK: 289 }, 'INVALID_ARGUMENT', /top-k/],
    ['repeated layers', { capture: { layers: [1, 1], positions: 'last' } }, 'INVALID_ARGUMENT', /repeat/],
    ['repeated positions', { logits: [7, -1] }, 'INVALID_ARGUMENT', /repeat/],
    ['logits of nowhere', { logits: true as unknown as 'all' }, 'POSITION_OUT_OF_RANGE', /Position true/],
    ['a capture of no layers', { capture: { layers: [] } }, 'INVALID_ARGUMENT', /No layers/],
    ['no prompt', { prompt: undefined as unknown as Prompt }, 'INVALID_ARGUMENT', /a Prompt/],
  ])('%s', async (_, row, code, message) => {
    await expectError(() => context.pass([{ prompt, ...row }]), code as 'BUSY', message);
    const [after] = await context.pass([{ prompt, topK: 1 }]);
    expect(after?.top).toHaveLength(1);
  });

  test('token ids outside the vocabulary, no rows, an empty prompt, a context of no size', async () => {
    await expectError(() => model.prompt({ tokens: [1, 288] }), 'TOKEN_INVALID', /288 at index 1/);
    await expectError(() => model.prompt({ tokens: [1.5] }), 'TOKEN_INVALID', /1\.5/);
    await expectError(() => context.pass([]), 'INVALID_ARGUMENT', /at least one row/);
    await expectError(() => model.prompt([]), 'PROMPT_EMPTY', /empty/);
    await expectError(() => model.prompt({ tokens: [] }), 'PROMPT_EMPTY', /no tokens/);
    for (const options of [{ nCtx: 0 }, { nCtx: 1.5 }, { nUbatch: 0 }, { nCtx: 2 ** 30 }, { threads: 0 }]) {
      await expectError(() => model.createContext(options), 'INVALID_ARGUMENT', /whole number/);
    }
  });

  test('states driven out of range give an error and not a token', async () => {
    const [before] = await context.pass([{ prompt, logits: 'last' }]);
    const at = { hook: 'resid_post', layers: 0, positions: 3 } as const;
    const interventions: Intervention[] = [
      patch(
        0,
        3,
        value.map(() => 3e38),
      ),
      { ...at, op: 'scale', factor: 1000 },
    ];
    for (const wanted of [{ topK: 1 }, { logits: 'last' }, { capture: { layers: 'all', positions: [3] } }] as const) {
      await expectError(() => context.pass([{ prompt, interventions, ...wanted }]), 'NOT_FINITE', /outside the range/);
    }
    await expectError(() => context.generate([{ prompt, interventions }]), 'NOT_FINITE', /outside the range/);
    const [after] = await context.pass([{ prompt, logits: 'last' }]);
    expect(after).toEqual(before);
  });

  test('values beyond the range of the cache, if nothing that reads them is returned, do not reach the next call', async () => {
    await using half = await model.createContext({ nCtx: 256 });
    const read = () => half.pass([{ prompt, logits: 'last' }]);
    const [before] = await read();
    for (const hook of ['v', 'k'] as const) {
      const at = { hook, layers: 0, positions: 3 } as const;
      await half.pass([{ prompt, interventions: [{ ...at, op: 'scale', factor: 1e7 }] }]);
      expect((await read())[0]).toEqual(before);
    }
  });

  test.each(['on', 'off'] as const)(
    'nor where the call failed, or read other rows (flash attention %s)',
    async (flashAttention) => {
      await using half = await model.createContext({ nCtx: 256, flashAttention });
      const short = await model.prompt({ tokens: randomTokens(model, 5, 9) });
      const read = () => half.pass([{ prompt: short, logits: 'last' }]);
      const [before] = await read();
      for (const hook of ['v', 'k'] as const) {
        const interventions = [{ hook, layers: 0, positions: 3, op: 'scale', factor: 1e7 }] as const;
        const edges = [{ layers: 1, from: [0, 1, 2, 3], to: 3 }];
        await expectError(() => half.pass([{ prompt, interventions, edges }]), 'INTERVENTION_INVALID', /nothing/);
        expect((await read())[0]).toEqual(before);
        // The other row may fail too: masked cells enter some kernels as 0 times infinity.
        await half
          .pass([
            { prompt, interventions },
            { prompt: short, logits: 'last' },
          ])
          .catch(() => undefined);
        expect((await read())[0]).toEqual(before);
      }
    },
  );

  // The last two are finite: their squares are not, and a norm would make zeros of them.
  test.each([
    ['add', { op: 'add', value: new Float32Array(64).fill(1), factor: 3e38 }],
    ['add of 1e30', { op: 'add', value: new Float32Array(64).fill(1), factor: 1e30 }],
    ['scale', { op: 'scale', factor: -3e38 }],
    ['replace', { op: 'replace', value: new Float32Array(64).fill(1e25) }],
  ] as const)(
    '%s beyond the range is an error at every layer and position, also when nothing is returned',
    async (_, edit) => {
      const [before] = await context.pass([{ prompt, logits: 'all' }]);
      for (const layer of [0, 1, 2]) {
        for (const positions of [0, 3, 'last'] as const) {
          const interventions = [{ hook: 'resid_post', layers: layer, positions, ...edit }] as const;
          await expectError(
            () => context.pass([{ prompt, interventions }]),
            'NOT_FINITE',
            new RegExp(`layer ${layer} `),
          );
          await expectError(() => context.pass([{ prompt, interventions }], { keep: true }), 'NOT_FINITE', /range/);
          await expectError(
            () => context.generate([{ prompt, interventions }], { maxTokens: 1 }),
            'NOT_FINITE',
            /range/,
          );
        }
      }
      const [after] = await context.pass([{ prompt, logits: 'all' }]);
      expect(after).toEqual(before);
    },
  );

  test('a large state that the model can compute with is none', async () => {
    const interventions = [patch(0, 3, new Float32Array(64).fill(1e15))];
    const [result] = await context.pass([{ prompt, interventions, topK: 1 }]);
    expect(result?.interventions[0]?.delta).toBeCloseTo(8e15, -10);
  });

  test.each(['constructor', '__proto__', 'toString', 'hasOwnProperty', ''])(
    'a place, hook or operation named %p',
    async (name) => {
      const edit = { hook: 'resid_post', layers: 0, positions: 3, op: 'zero' } as const;
      const run = (changed: object) =>
        context.pass([{ prompt, interventions: [{ ...edit, ...changed } as Intervention] }]);
      await expectError(() => run({ positions: name }), 'POSITION_OUT_OF_RANGE', /no mark/);
      await expectError(() => run({ positions: [name] }), 'POSITION_OUT_OF_RANGE', /no mark/);
      await expectError(() => run({ op: name }), 'INTERVENTION_INVALID', /operation must be/);
      await expectError(() => run({ hook: name }), 'HOOK_UNSUPPORTED', /no hook/);
      await expectError(
        () => context.pass([{ prompt, capture: { layers: 'all', positions: [name] } }]),
        'POSITION_OUT_OF_RANGE',
        /no mark/,
      );
      const marked = await model.prompt([{ tokens: [1, 2, 3] }, { mark: name }, { tokens: [4] }]);
      const [result] = await context.pass([{ prompt: marked, interventions: [{ ...edit, positions: name }] }]);
      expect(result?.interventions).toMatchObject([{ position: 2 }]);
      expect(result?.interventions[0]?.delta).toBeGreaterThan(0);
    },
  );

  test.each([1e39, -1e300, Number.NaN, Number.POSITIVE_INFINITY])(
    'a factor of %d, which float32 has no room for',
    async (factor) => {
      for (const edit of [{ op: 'scale' }, { op: 'add', value }] as const) {
        const interventions = [{ hook: 'resid_post', layers: 0, positions: 3, factor, ...edit }] as const;
        await expectError(() => context.pass([{ prompt, interventions }]), 'INTERVENTION_INVALID', /float32/);
      }
    },
  );
});
