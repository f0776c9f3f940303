// Models with a table of learned positions have nothing behind its end, where llama.cpp ends the process.
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { Context } from '../../src/model/context.js';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import { promptNotes } from '../../src/model/prompt-notes.js';
import type { PromptPart } from '../../src/prompt/types.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import './helpers.js';
import { BPE, SPM, writeVocabulary } from './vocabulary.js';

const folder = await temporaryFolder();
let model: Model;
let context: Context;
beforeAll(async () => {
  const path = writeVocabulary(join(folder, 'positions.gguf'), { ...BPE, positions: 24 });
  model = await loadModel(path, { device: 'cpu', threads: 1 });
  context = await model.createContext({ nCtx: 256 });
});
afterAll(() => model.dispose());

const prompt = (n: number) => model.prompt({ tokens: Array.from({ length: n }, (_, i) => 10 + i) });

test('a prompt as long as the table runs, a longer one is refused by every call', async () => {
  expect(model.info.maxPositions).toBe(24);
  const states = { capture: { layers: 'all', positions: 'all' } } as const;
  const [whole] = await context.pass([{ prompt: await prompt(24), ...states, logits: 'last' }]);
  expect(whole.states?.data.every(Number.isFinite)).toBe(true);
  const long = await prompt(25);
  for (const call of [
    () => context.pass([{ prompt: long, ...states }]),
    () => context.generate([{ prompt: long }]),
    async () => context.pass([{ prompt: await prompt(3) }, { prompt: long }]),
  ]) {
    await expectError(call, 'CONTEXT_OVERFLOW', /25 positions, and the model.s learned position table ends at 24/);
  }
});

test('an answer ends where the table does, for each row by itself', async () => {
  const rows = await Promise.all([20, 24, 1].map(async (n) => ({ prompt: await prompt(n) })));
  const answers = await context.generate(rows, { maxTokens: 100 });
  for (const [i, { tokens, finish }] of answers.entries()) {
    if (finish === 'end') continue;
    expect(finish).toBe('length');
    expect(tokens).toHaveLength(25 - (rows[i]?.prompt.length ?? 0));
  }
  expect(answers.some(({ finish }) => finish === 'length')).toBe(true);
});

test('notes: two BOS, control tokens of a text, more positions than were trained', async () => {
  const fields = { 'tokenizer.ggml.add_bos_token': { type: 'bool', value: true } } as const;
  const spm = await loadModel(writeVocabulary(join(folder, 'spm.gguf'), { ...SPM, fields }), {
    device: 'cpu',
    threads: 1,
  });
  try {
    const notes = async (parts: readonly PromptPart[], bos?: boolean) =>
      promptNotes(spm, parts, await spm.prompt(parts, { bos }));
    expect(await notes(['Peru'])).toEqual([]);
    expect(await notes([{ literal: '<s>' }])).toEqual([]);
    expect(await notes(['<s>Peru'])).toEqual([expect.stringMatching(/begins with <s> twice.*--no-bos/)]);
    expect(await notes(['<s>Peru</s>'], false)).toEqual([expect.stringMatching(/^<s> <\/s> in the prompt.*--literal/)]);
    expect((await spm.prompt('<s>', { bos: false })).tokens).toEqual(spm.tokenize('<s>'));
    expect(await notes([{ tokens: Array.from({ length: 65 }, () => 9) }])).toEqual([
      expect.stringMatching(/65 positions.*64/),
    ]);
  } finally {
    await spm.dispose();
  }
});

test('a BOS outside the vocabulary is refused where it would be used, and none otherwise', async () => {
  const open = (name: string, add: boolean) =>
    loadModel(
      writeVocabulary(join(folder, name), {
        ...SPM,
        bos: 99_999,
        fields: { 'tokenizer.ggml.add_bos_token': { type: 'bool', value: add } },
      }),
      { device: 'cpu', threads: 1 },
    );
  await expectError(() => open('bos-added.gguf', true), 'GGUF_INVALID', /begins prompts with token 99999/);
  const other = await open('bos-not-added.gguf', false);
  expect(other.info.bosToken).toBe(-1);
  await other.dispose();
});
