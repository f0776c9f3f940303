import { expect, test } from '@jest/globals';
import { patchRectangle } from '../../src/images/patch-grid.js';
import { buildPrompt, type PromptTools } from '../../src/prompt/prompt-builder.js';
import { textRuns } from '../../src/prompt/text-parts.js';
import type { PromptPart, TextPart } from '../../src/prompt/types.js';
import { expectError } from './helpers.js';

/** One token a character, but `A:` and `:\n` are tokens of their own, so that a mark can fall into one. */
const pieces = (text: string) => text.match(/A:|:\n|[\s\S]/g) ?? [];
const tools: PromptTools = {
  tokenize: (parts) =>
    Int32Array.from(pieces(textRuns(parts).join('')), (piece) => piece.charCodeAt(0) + 1000 * (piece.length - 1)),
  describe: (token) => String.fromCharCode(token % 1000),
  bytesOf: (token) => Buffer.from(token < 1000 ? String.fromCharCode(token) : token === 1065 ? 'A:' : ':\n'),
  bos: 1,
  nVocab: 5000,
  encodeImage: async () => [
    { kind: 'tokens', tokens: Int32Array.of(7) },
    {
      kind: 'image',
      key: 'k',
      embeddings: new Float32Array(6),
      nRows: 3,
      nPositions: 3,
      nonCausal: false,
      positions: new Int32Array(0),
      seen: { data: new Uint8Array(4 * 2 * 3), width: 4, height: 2, hash: 'h' },
      grid: [{ x: 0, y: 0, width: 2, height: 2 }, undefined, { x: 2, y: 0, width: 2, height: 2 }],
    },
  ],
};

test('a mark is the position of the token that ends at its place, pictures and BOS counted', async () => {
  const prompt = await buildPrompt(
    ['Q:', { mark: 'question' }, { image: 'x.png' }, { mark: 'picture' }, '\nA:', { mark: 'delimiter' }],
    tools,
  );
  expect(Array.from(prompt.tokens)).toEqual([1, 81, 58, 7, -1, -1, -1, 10, 1065]);
  expect(prompt.marks).toEqual({ question: 2, picture: 6, delimiter: 8 });
  expect(prompt.position('delimiter')).toBe(8);
  expect(prompt.position(-1)).toBe(8);
});

test('rows of pictures have positions: those of all, of the n-th, beside others', async () => {
  const prompt = await buildPrompt(['Q:', { image: 'a.png' }, { image: 'b.png' }, 'A:'], tools);
  const rows = (picture: number | 'all') => prompt.positions({ picture });
  expect([rows('all'), rows(1), rows(2), rows(-1)]).toEqual([
    [4, 5, 6, 8, 9, 10],
    [4, 5, 6],
    [8, 9, 10],
    [8, 9, 10],
  ]);
  expect(prompt.positions([{ picture: 2 }, 'last'])).toEqual([8, 9, 10, 11]);
  expect(prompt.append(prompt).positions({ picture: 3 })).toEqual([16, 17, 18]);
  for (const picture of [0, 3, -3, 1.5]) await expectError(() => rows(picture), 'POSITION_OUT_OF_RANGE', /only 2/);
  const bare = await buildPrompt(['Q:'], tools);
  await expectError(() => bare.positions({ picture: 'all' }), 'POSITION_OUT_OF_RANGE', /no picture/);
});

test('a text of a prompt has positions, by its occurrence, beside others and not across a picture', async () => {
  const prompt = await buildPrompt(['Q:Peru A:', { image: 'x.png' }, '\nQ:Peru\nA:'], tools);
  const places = (text: string, occurrence?: number) => prompt.positions({ text, occurrence });
  const text = (positions: number[]) => positions.map((p) => tools.describe(prompt.tokens[p] as number)).join('');
  expect([places('Peru'), text(places('Peru'))]).toEqual([[16, 17, 18, 19], 'Peru']);
  expect([places('Peru', 1), places('Peru', 2), places('Peru', -2)]).toEqual([
    [3, 4, 5, 6],
    [16, 17, 18, 19],
    [3, 4, 5, 6],
  ]);
  expect(places(' A:', 1)).toEqual([7, 8]);
  expect(prompt.positions([{ text: 'A:', occurrence: 1 }, 'last', { from: 0, to: 1 }])).toEqual([8, 21, 0, 1]);
  expect(prompt.append(Int32Array.of(80)).positions({ text: 'P' })).toEqual([22]);
  await expectError(() => places('A:\n'), 'POSITION_OUT_OF_RANGE', /not at all/); // a picture is between
  await expectError(() => places('Peru', 3), 'POSITION_OUT_OF_RANGE', /2 times/);
  await expectError(() => places('A'), 'MARK_AMBIGUOUS', /"A:"/);
  await expectError(() => places(''), 'INVALID_ARGUMENT', /empty/);
  await expectError(() => places('Peru', 0), 'INVALID_ARGUMENT', /occurrence 0/);
  await expectError(() => prompt.positions([null as never]), 'POSITION_OUT_OF_RANGE', /null/);
});

test('a row of a picture has its rectangle; tokens and separator rows have none', async () => {
  const prompt = await buildPrompt(['Q:', { image: 'x.png' }, { image: 'x.png' }, { mark: 'end' }], tools);
  expect(prompt.pictures.map(({ first, nRows }) => [first, nRows])).toEqual([
    [4, 3],
    [8, 3],
  ]);
  expect(patchRectangle(prompt, 4)).toEqual({ picture: 0, x: 0, y: 0, width: 2, height: 2 });
  expect(patchRectangle(prompt, 'end')).toEqual({ picture: 1, x: 2, y: 0, width: 2, height: 2 });
  for (const position of [3, 7]) await expectError(() => patchRectangle(prompt, position), 'NO_PATCH_GRID', /token/);
  await expectError(() => patchRectangle(prompt, 5), 'NO_PATCH_GRID', /separator/);
  await expectError(() => patchRectangle(prompt, 11), 'POSITION_OUT_OF_RANGE', /outside the prompt/);
});

test('texts and literals beside each other are one text, which marks do not part; no token ids in front mean no BOS', async () => {
  const asked: (readonly TextPart[])[] = [];
  const tokenize: PromptTools['tokenize'] = (parts) => {
    asked.push(parts);
    return tools.tokenize(parts);
  };
  const parts = [{ tokens: [] }, 'ab', { literal: 'A' }, { mark: 'm' }, { literal: '' }, 'c', { tokens: [9] }, ':'];
  const prompt = await buildPrompt(parts, { ...tools, tokenize });
  expect(asked).toEqual([['ab', { literal: 'A' }, 'c'], ['ab', { literal: 'A' }], [':']]);
  expect(String.fromCharCode(...prompt.tokens)).toBe('abAc\t:');
  expect(prompt.marks).toEqual({ m: 2 });
});

test('a literal is the start of a prompt, and an empty one is nothing', async () => {
  expect((await buildPrompt([{ literal: 'a' }], tools)).tokens).toEqual(Int32Array.of(1, 97));
  expect((await buildPrompt([{ literal: '' }, { tokens: [5] }], tools)).tokens).toEqual(Int32Array.of(5));
});

test('marks do not change the tokens of the text around them', async () => {
  const marked = await buildPrompt(['ab', { mark: 'm' }, 'cA:'], tools);
  const plain = await buildPrompt(['abcA:'], tools);
  expect(marked.tokens).toEqual(plain.tokens);
});

test.each<[string, PromptPart[]]>([
  ['inside a token', ['A:', { mark: 'm' }, '\n', 'x:', { mark: 'n' }, '\n']],
  ['before the first token', [{ tokens: [] }, { mark: 'm' }, { tokens: [3] }]],
  ['twice', ['a', { mark: 'm' }, 'b', { mark: 'm' }]],
  ['with a reserved name', ['a', { mark: 'last' }]],
])('a mark %s is refused', async (_, parts) => {
  await expectError(() => buildPrompt(parts, tools), 'MARK_AMBIGUOUS', /mark/);
});

test('BOS is not added in front of token ids, which are taken as they are', async () => {
  const prompt = await buildPrompt([{ tokens: [4, 5] }, 'a', { mark: 'm' }], tools);
  expect(Array.from(prompt.tokens)).toEqual([4, 5, 97]);
  expect(prompt.marks).toEqual({ m: 2 });
});

test.each<[PromptPart[]]>([[[]], [['']], [[{ mark: 'm' }]], [[{ tokens: [] }]], [[{ literal: '' }]]])(
  'an empty prompt is refused: %j',
  async (parts) => {
    await expectError(() => buildPrompt(parts, tools), 'PROMPT_EMPTY', /Give it/);
  },
);

test('token ids outside the vocabulary are refused', async () => {
  for (const token of [-1, 5000, 1.5]) {
    await expectError(() => buildPrompt([{ tokens: [token] }], tools), 'TOKEN_INVALID', /outside the vocabulary/);
  }
});

test('positions outside the prompt and unknown marks are refused', async () => {
  const prompt = await buildPrompt(['ab'], tools);
  for (const ref of [3, -4, 0.5, 'nowhere'])
    await expectError(() => prompt.position(ref), 'POSITION_OUT_OF_RANGE', /prompt/);
  await expectError(() => prompt.positions([0, -3]), 'INVALID_ARGUMENT', /repeat/);
});
