// Literal parts of texts, against llama.cpp itself: a literal is read as by a model whose control tokens are spelled otherwise.
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterAll, describe, expect, test } from '@jest/globals';
import { loadModel } from '../../src/model/load-model.js';
import type { Model } from '../../src/model/model.js';
import type { TextPart } from '../../src/prompt/types.js';
import { Random } from '../../src/util/random.js';
import { temporaryFolder } from '../unit/helpers.js';
import './helpers.js';
import {
  BPE,
  CONTROL,
  PLAMO,
  RWKV,
  SPM,
  UNIGRAM,
  UNKNOWN,
  type Vocabulary,
  WORDPIECE,
  writeVocabulary,
} from './vocabulary.js';

const folder = await temporaryFolder();
const opened: Model[] = [];
afterAll(async () => {
  for (const model of opened) await model.dispose();
});
let files = 0;
async function open(vocabulary: Vocabulary): Promise<Model> {
  const model = await loadModel(writeVocabulary(join(folder, `${files++}.gguf`), vocabulary), {
    device: 'cpu',
    threads: 1,
  });
  opened.push(model);
  return model;
}

const isControl = (type?: number) => type === CONTROL || type === UNKNOWN;
/** Brackets that no other token holds. */
const renamed = (text: string) => `⟪${text.replace('/', 'x').replace(/[^a-z_]/gi, '')}⟫`;

/** The same vocabulary with control tokens of other names, and a text with control tokens as that model spells them. */
function otherwise(vocabulary: Vocabulary) {
  const control = vocabulary.tokens.flatMap(([text, type]) =>
    isControl(type) || /^<\|.*\|>$/.test(text) ? [text] : [],
  );
  const tokens = vocabulary.tokens.map(
    ([text, type, score]) => [control.includes(text) ? renamed(text) : text, type, score] as const,
  );
  const made = new Set(control);
  const merges = vocabulary.merges?.filter((merge) => !made.has(merge.replace(' ', '')));
  const longestFirst = [...control].sort((a, b) => b.length - a.length);
  const rename = (text: string) => longestFirst.reduce((all, token) => all.replaceAll(token, renamed(token)), text);
  return { vocabulary: { ...vocabulary, tokens, ...(merges && { merges }) }, rename, control };
}

const KINDS: [string, Vocabulary, { exact?: false }?][] = [
  ['SentencePiece', SPM],
  [
    'SentencePiece without a blank in front',
    { ...SPM, fields: { 'tokenizer.ggml.add_space_prefix': { type: 'bool', value: false } } },
  ],
  ['byte-level BPE', BPE],
  ['byte-level BPE of gpt-oss', { ...BPE, pre: 'gpt-4o' }],
  ['Unigram', UNIGRAM],
  ['RWKV', RWKV],
  ['WordPiece', WORDPIECE],
  ['PLaMo', PLAMO, { exact: false }],
];

describe.each(KINDS)('%s', (_, vocabulary, { exact = true } = {}) => {
  const { vocabulary: other, rename, control } = otherwise(vocabulary);
  const models = (async () => ({ model: await open(vocabulary), reference: await open(other) }))();
  const pieces = [
    ...control,
    'Peru',
    'ru',
    'red',
    ' ',
    '  ',
    '\n',
    'Q:',
    ' a',
    '<',
    's>',
    '</',
    '|',
    'é',
    '🙂',
    '<tag>',
    'end_user',
  ];
  const random = new Random(1, 'parts');
  const some = () =>
    Array.from({ length: 1 + Math.floor(random.uniform() * 5) }, () => random.sample(pieces, 1)[0]).join('');

  test('parts without special tokens are the text that they make', async () => {
    const { model } = await models;
    for (const parts of [
      ['Q:', { literal: 'Peru' }],
      [{ literal: 'Pe' }, 'ru'],
      ['Q:Pe', { literal: 'ru' }, ' red ', { literal: ' ' }, { literal: 'a' }],
      [{ literal: 'é' }, '🙂', { literal: '\n\n' }, 'Peru'],
    ]) {
      const whole = parts.map((part) => (typeof part === 'string' ? part : part.literal)).join('');
      expect(model.tokenize(parts)).toEqual(model.tokenize(whole));
      expect(model.tokenize({ literal: whole })).toEqual(model.tokenize(whole));
    }
  });

  test('special tokens of the text stay, those of literals are letters', async () => {
    const { model, reference } = await models;
    const ids = new Set(
      vocabulary.tokens.flatMap(([text, type], id) => (control.includes(text) && type !== UNKNOWN ? [id] : [])),
    );
    for (let i = 0; i < (vocabulary.pre === 'gpt-4o' ? 12 : 200); i++) {
      // its expressions take long to compile
      const parts: TextPart[] = Array.from({ length: 1 + (i % 6) }, (_, k) =>
        k % 2 === i % 2 ? some() : { literal: some() },
      );
      const spelled = parts.map((part) => (typeof part === 'string' ? rename(part) : part.literal)).join('');
      const seams = parts.slice(1).map((_, k) => parts.slice(0, k + 1));
      const whole = parts.map((part) => (typeof part === 'string' ? part : part.literal)).join('');
      // What a text begins and a literal ends is a control token for neither.
      if (seams.some((before) => crosses(whole, before, control))) continue;
      const tokens = model.tokenize(parts);
      const what = JSON.stringify(parts);
      if (exact) expect([what, ...tokens]).toEqual([what, ...reference.tokenize(spelled)]);
      const literals = parts.filter((part) => typeof part !== 'string');
      for (const literal of literals)
        expect(model.tokenize(literal).filter((id) => ids.has(id))).toEqual(new Int32Array(0));
    }
  });
});

/** Whether a control token lies across the end of `before` in the text. */
function crosses(whole: string, before: readonly TextPart[], control: readonly string[]): boolean {
  const seam = before.map((part) => (typeof part === 'string' ? part : part.literal)).join('').length;
  return control.some((token) => {
    const at = whole.slice(Math.max(0, seam - token.length + 1), seam + token.length - 1);
    return at.includes(token);
  });
}

test('a control token half of which a literal gives is only text', async () => {
  const model = await open(SPM);
  const [control] = model.tokenize('<s>');
  for (const parts of [
    ['<', { literal: 's>' }],
    [{ literal: '<s' }, '>'],
    ['<', { literal: 's' }, '>'],
  ]) {
    expect(model.tokenize(parts)).not.toContain(control);
  }
  expect(model.tokenize(['<', 's>'])).toContain(control);
  expect(model.tokenize(['<s>', { literal: '<s>' }, '<s>']).filter((token) => token === control)).toHaveLength(2);
});

test('special tokens that take blanks behind them take those of a literal', async () => {
  const tokens = [...SPM.tokens, ['<|endoftext|>', CONTROL] as const];
  const model = await open({ ...SPM, name: 'phi-3', tokens }); // llama.cpp goes by the name
  const [end] = model.tokenize('</s>');
  const expected = [end, ...model.tokenize({ literal: '<s>' })];
  expect([...model.tokenize(['</s> ', { literal: ' <s>' }])]).toEqual(expected);
  expect(expected.slice(1)).not.toContain(model.tokenize('<s>')[0]);
});

describe('long runs of one kind of character', () => {
  // Expressions of which std::regex would need more stack than threads have.
  const PRES = ['tekken', 'gpt-4o', 'deepseek-v3', 'default', 'falcon', 'viking'];

  test.each(PRES)('%s', async (pre) => {
    const model = await open({ ...BPE, pre });
    const byte = (character: string) => model.tokenize(character)[0] as number;
    for (const character of ['a', 'A', '.']) {
      expect(model.tokenize(character.repeat(26_000))).toEqual(new Int32Array(26_000).fill(byte(character)));
    }
    expect(model.tokenize({ literal: `<s>${'a'.repeat(26_000)}` }).length).toBeGreaterThan(26_000);
    expect(model.tokenize('<s>'.repeat(9000))).toEqual(new Int32Array(9000).fill(0));
  });

  test('a million characters are tokens, and what is too much is an error', async () => {
    const model = await open({ ...BPE, pre: 'falcon' });
    expect(model.tokenize('a'.repeat(1_000_000))).toHaveLength(1_000_000);
    expect(model.tokenize('some words in lines\n'.repeat(150_000)).length).toBeGreaterThan(1_000_000);
    expect(() => model.tokenize('a'.repeat(2_000_001))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    const slow = await open({ ...BPE, pre: 'superbpe' });
    expect(slow.tokenize('1'.repeat(1000))).toHaveLength(1000);
    expect(() => slow.tokenize('1'.repeat(30_000))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  test('in a worker thread', async () => {
    const path = writeVocabulary(join(folder, 'worker.gguf'), { ...BPE, pre: 'tekken' });
    const script = fileURLToPath(new URL('tokenize-worker.mjs', import.meta.url));
    const worker = new Worker(script, { workerData: { path, text: 'a'.repeat(26_000) } });
    const [tokens] = await once(worker, 'message');
    expect(tokens).toBe(26_000);
    await once(worker, 'exit');
  });

  test('prompts of more tokens than a call takes arguments', async () => {
    const model = await open(BPE);
    const prompt = await model.prompt(['a'.repeat(130_000), { tokens: [7] }, 'a'.repeat(130_000), { mark: 'end' }]);
    expect(prompt.length).toBe(260_001);
    expect(prompt.marks).toEqual({ end: 260_000 });
  });
});
