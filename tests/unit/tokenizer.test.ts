// Token ids from a tokenizer.json inside a GGUF, against Hugging Face's own library (tests/reference/tokenizers_json.py).
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import type { GgufHeader, GgufValue } from '../../src/gguf/gguf.js';
import { JsonTokenizer } from '../../src/prompt/tokenizer.js';

interface Kind {
  name: string;
  nVocab: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests spoil single fields of it
  json: any;
  ids: number[][];
}
const file = readFileSync(new URL('../fixtures/tokenizers.json', import.meta.url), 'utf8');
const { texts, kinds }: { texts: string[]; kinds: Kind[] } = JSON.parse(file);
const unigram = kinds.find(({ name }) => name === 'unigram') as Kind;

function open(json: unknown, nVocab = unigram.nVocab, kind: GgufValue = 'huggingface'): JsonTokenizer | undefined {
  const metadata = new Map<string, GgufValue>([
    ['xpatch.tokenizer', kind],
    ['tokenizer.huggingface.json', typeof json === 'string' ? json : JSON.stringify(json)],
    ['tokenizer.ggml.tokens', { length: nVocab, values: [], repeats: false }],
  ]);
  return JsonTokenizer.of({ metadata } as GgufHeader, 'tiny.gguf');
}

test.each(kinds)('$name gives the ids of all texts', ({ json, nVocab, ids }) => {
  const tokenizer = open(json, nVocab) as JsonTokenizer;
  expect(texts.map((text) => [text, Array.from(tokenizer.encode([text]))])).toEqual(
    texts.map((text, i) => [text, ids[i]]),
  );
});

test('a literal holds no added token, whatever it says', () => {
  const tokenizer = open(unigram.json) as JsonTokenizer;
  const id = (text: string) => tokenizer.encode([text])[0] as number;
  const added = ['<unk>', '<s>', '</s>', '|IMAGE|'].map(id);
  for (const text of ['<s>', 'he</s>re', '<unk>', 'x|IMAGE|y', '<s></s><s>', '🙂<s>']) {
    const ids = Array.from(tokenizer.encode(['', text]));
    expect(ids.length).toBeGreaterThan(0);
    for (const token of added) expect(ids).not.toContain(token);
  }
});

test('a model without the key is left to llama.cpp', () => {
  expect(JsonTokenizer.of({ metadata: new Map() } as unknown as GgufHeader, 'x')).toBeUndefined();
});

const spoil = (change: (json: Kind['json']) => void): unknown => {
  const json = structuredClone(unigram.json);
  change(json);
  return json;
};

test.each<[string, string, unknown]>([
  ['WordPiece', 'TOKENIZER_UNSUPPORTED', spoil((json) => Object.assign(json.model, { type: 'WordPiece' }))],
  ['no type', 'TOKENIZER_UNSUPPORTED', spoil((json) => delete json.model.type)],
  ['NFKC', 'TOKENIZER_UNSUPPORTED', spoil((json) => json.normalizer.normalizers.push({ type: 'NFKC' }))],
  [
    'Precompiled',
    'TOKENIZER_UNSUPPORTED',
    spoil((json) => Object.assign(json, { normalizer: { type: 'Precompiled' } })),
  ],
  [
    'a nested list of normalizers',
    'TOKENIZER_UNSUPPORTED',
    spoil((json) => json.normalizer.normalizers.push({ type: 'Sequence', normalizers: [] })),
  ],
  [
    'ByteLevel',
    'TOKENIZER_UNSUPPORTED',
    spoil((json) => Object.assign(json, { pre_tokenizer: { type: 'ByteLevel' } })),
  ],
  [
    'Metaspace that splits',
    'TOKENIZER_UNSUPPORTED',
    spoil((json) => Object.assign(json, { pre_tokenizer: { type: 'Metaspace', split: true } })),
  ],
  [
    'a regular expression',
    'TOKENIZER_UNSUPPORTED',
    spoil((json) => Object.assign(json.normalizer.normalizers[1], { pattern: { Regex: '(a+)+$' } })),
  ],
  ['no JSON', 'GGUF_INVALID', '{"model":'],
  ['null', 'GGUF_INVALID', 'null'],
  ['a list', 'GGUF_INVALID', '[]'],
  ['no model', 'GGUF_INVALID', spoil((json) => delete json.model)],
  ['an empty vocabulary', 'GGUF_INVALID', spoil((json) => Object.assign(json.model, { vocab: [] }))],
  ['a score that is not a number', 'GGUF_INVALID', spoil((json) => Object.assign(json.model.vocab[5], { 1: null }))],
  ['an empty piece', 'GGUF_INVALID', spoil((json) => Object.assign(json.model.vocab[5], { 0: '' }))],
  ['no unknown token', 'GGUF_INVALID', spoil((json) => Object.assign(json.model, { unk_id: null }))],
  [
    'an added token without text',
    'GGUF_INVALID',
    spoil((json) => Object.assign(json.added_tokens[0], { content: '' })),
  ],
  [
    'an added token behind the vocabulary',
    'GGUF_INVALID',
    spoil((json) => Object.assign(json.added_tokens[0], { id: 99_999 })),
  ],
])('%s: %s', (_, code, json) => {
  expect(() => open(json)).toThrow(expect.objectContaining({ code }));
});

test('more pieces than the model has, another kind of tokenizer', () => {
  expect(() => open(unigram.json, 100)).toThrow(expect.objectContaining({ code: 'GGUF_INVALID' }));
  expect(() => open(unigram.json, undefined, 'tiktoken')).toThrow(
    expect.objectContaining({ code: 'TOKENIZER_UNSUPPORTED' }),
  );
});
