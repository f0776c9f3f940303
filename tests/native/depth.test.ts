// Nothing is computed behind what a call reads: what it does read must not depend on it, nor what later calls find in the cache.

import { afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Context } from '../../src/model/context.js';
import type { ContextOptions } from '../../src/model/context-options.js';
import type { Model } from '../../src/model/model.js';
import type { Capture, PassResult } from '../../src/model/pass.js';
import type { Prompt } from '../../src/prompt/prompt.js';
import { expectSame, load, logitsOf, randomVector, statesOf, tokenPrompt } from './helpers.js';

// The rows with outputs are chosen inside the last block (llama, gemma3, gpt-neox) or behind it (gpt-oss, gemma4).
describe.each(['llama', 'gemma3', 'gpt-neox', 'gpt-oss', 'gemma4'])('%s', (name) => {
  let model: Model;
  let prompt: Prompt;
  let last: number;
  const contexts: Context[] = [];

  const contextOf = async (options: ContextOptions = {}) => {
    const context = await model.createContext({ nCtx: 256, kvType: 'f32', flashAttention: 'off', ...options });
    contexts.push(context);
    return context;
  };
  const sameStates = (a: PassResult, b: PassResult) => expectSame(statesOf(a), statesOf(b), model.info.nEmbd, 'states');
  const sameLogits = (a: PassResult, b: PassResult) =>
    expectSame(logitsOf(a), logitsOf(b), model.info.nVocab, 'logits');

  beforeAll(async () => {
    model = await load(name);
    prompt = await tokenPrompt(model, 60);
    last = model.info.nLayers - 1;
  });
  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.dispose();
  });

  test('logits of some rows are those of a call that captures nothing, whatever else is captured', async () => {
    const context = await contextOf();
    for (const logits of ['last', [7, 30, 59], [0]] as const) {
      const plain = await context.run({ prompt, logits, topK: 3 });
      for (const capture of [
        'all',
        { layers: [last] },
        { hook: 'final_norm' },
        { hook: 'mlp_out', layers: [last] },
      ] satisfies Capture[]) {
        const result = await context.run({ prompt, logits, topK: 3, capture });
        sameLogits(result, plain);
        expect(result.top.map(({ token }) => token)).toEqual(plain.top.map(({ token }) => token));
      }
    }
  });

  test('interventions on the last block and on the final norm reach the logits', async () => {
    const context = await contextOf();
    for (const hook of ['resid_post', 'final_norm'] as const) {
      const value = randomVector(model.info.nEmbd, 5);
      const interventions = [{ hook, layers: last, positions: [3, 20, -1], op: 'add', value } as const];
      const plain = await context.run({ prompt, interventions, logits: [3, 20, -1], topK: 1 });
      const some = await context.run({ prompt, interventions, logits: [20], capture: { hook } });
      const { nVocab } = model.info;
      expectSame(logitsOf(some), logitsOf(plain).subarray(nVocab, 2 * nVocab), nVocab, 'logits');
    }
  });

  test.each(['resid_pre', 'attn_out', 'resid_post'] as const)(
    'states of %s alone equal those of a whole pass',
    async (hook) => {
      const context = await contextOf();
      const value = randomVector(model.info.nEmbd, 1);
      const there = context.hooks.find((point) => point.hook === hook)?.layers ?? [];
      for (const layer of [0, 1, last].filter((l) => there.includes(l))) {
        const interventions = [{ layers: 0, positions: [2, 40], op: 'replace', value } as const];
        const row = { prompt, interventions, capture: { hook, layers: [layer] } };
        const whole = await context.run({ ...row, logits: 'all' });
        for (const nUbatch of [256, 16]) {
          const small = await contextOf({ nUbatch });
          sameStates(await small.run(row), whole);
          // What is left in the cache is not taken for whole.
          sameLogits(await small.run({ prompt, logits: 'last' }), await context.run({ prompt, logits: 'last' }));
        }
      }
    },
  );

  test('rows that go on from one that reads little have all that they need', async () => {
    const context = await contextOf();
    const start = await model.prompt({ tokens: prompt.tokens.slice(0, 30) });
    const rows = [
      { prompt: start, capture: { layers: [0] } },
      { prompt, capture: { layers: [last], positions: 'last' } },
    ] as const;
    const together = await context.pass(rows);
    for (const [i, row] of rows.entries())
      sameStates(together[i] as PassResult, await context.run({ ...row, logits: 'last' }));
  });

  test('a kept row is computed in full', async () => {
    const context = await contextOf();
    const start = await model.prompt({ tokens: prompt.tokens.slice(0, 30) });
    await context.pass([{ prompt: start, capture: { layers: [0] } }], { keep: true });
    sameLogits(
      await context.run({ prompt, logits: 'last' }),
      await (await contextOf()).run({ prompt, logits: 'last' }),
    );
  });
});
