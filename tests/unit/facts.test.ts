// What a model or an mmproj says of itself and cannot be: each named cause ends llama.cpp's process and is refused before it, in words
// that name the key or the tensor. The bases are good files with one change each.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { checkModelFile } from '../../src/gguf/gguf-check.js';
import { checkProjectorFile } from '../../src/gguf/mmproj-check.js';
import { parse, serialise } from '../faults/hostile.js';
import { towers, writeTower } from '../native/towers.js';
import { expectError, temporaryFolder } from './helpers.js';

const FIXTURES = fileURLToPath(new URL('../fixtures/models/', import.meta.url));
const [U32, STRING, ARRAY] = [4, 8, 9];
const [F32, F16, Q8_0, I32] = [0, 1, 8, 26];
const folder = await temporaryFolder();

type Document = ReturnType<typeof parse>;
type Change = (document: Document) => void;

const u32 = (n: number) => Buffer.from(Uint32Array.of(n).buffer);
const text = (value: string) => Buffer.concat([u32(value.length), u32(0), Buffer.from(value)]);
const put = ({ pairs }: Document, key: string, type: number, raw: Buffer) => {
  const found = pairs.find((pair) => pair.key === key);
  if (found) Object.assign(found, { type, raw });
  else pairs.push({ key, type, raw });
};
const set =
  (key: string, n: number): Change =>
  (document) =>
    put(document, key, U32, u32(n));
const without =
  (key: string): Change =>
  (document) => {
    document.pairs = document.pairs.filter((pair) => pair.key !== key);
  };
/** Another architecture, with its keys. */
const called =
  (to: string): Change =>
  (document) => {
    const from = document.pairs
      .find(({ key }) => key === 'general.architecture')
      ?.raw.subarray(8)
      .toString();
    for (const pair of document.pairs) pair.key = pair.key.replace(`${from}.`, `${to}.`);
    put(document, 'general.architecture', STRING, text(to));
  };
const projector =
  (to: string): Change =>
  (document) =>
    put(document, 'clip.projector_type', STRING, text(to));
const tensor =
  (name: string, shape: number[], type = F32): Change =>
  (document) => {
    const bytes = { [F32]: 4, [F16]: 2, [I32]: 4 }[type] ?? 34 / 32;
    const data = Buffer.alloc(shape.reduce((a, b) => a * b, bytes));
    document.tensors = [...document.tensors.filter((one) => one.name !== name), { name, shape, type, data }];
  };
const lost =
  (name: RegExp): Change =>
  (document) => {
    const left = document.tensors.filter((one) => !name.test(one.name));
    expect(left.length).toBeLessThan(document.tensors.length);
    document.tensors = left;
  };
const token =
  (index: number, value: string): Change =>
  ({ pairs }) => {
    const pair = pairs.find(({ key }) => key === 'tokenizer.ggml.tokens') as Document['pairs'][number];
    const items: Buffer[] = [];
    for (let at = 12; at < pair.raw.length; ) {
      const end = at + 8 + pair.raw.readUInt32LE(at);
      items.push(pair.raw.subarray(at, end));
      at = end;
    }
    items[index] = text(value);
    pair.raw = Buffer.concat([pair.raw.subarray(0, 12), ...items]);
  };
const numbers =
  (key: string, ...values: number[]): Change =>
  (document) =>
    put(document, key, ARRAY, Buffer.concat([u32(5), u32(values.length), u32(0), ...values.map(u32)]));

function changed(base: Buffer, changes: readonly Change[]): string {
  const document = parse(base);
  for (const change of changes) change(document);
  const path = join(folder, 'changed.gguf');
  writeFileSync(path, serialise(document));
  return path;
}

describe('a model with', () => {
  test.each<[string, string, Change[], RegExp]>([
    [
      'more drafting blocks than blocks',
      'llama',
      [set('llama.nextn_predict_layers', 7)],
      /nextn_predict_layers is 7, but it has \d blocks/,
    ],
    [
      'the same in another family',
      'gemma2',
      [set('gemma2.nextn_predict_layers', 1e9)],
      /nextn_predict_layers is 1000000000/,
    ],
    [
      'values longer than keys',
      'qwen2',
      [set('qwen2.attention.value_length', 32)],
      /keys of 16 numbers and values of 32/,
    ],
    [
      'keys longer than values',
      'gpt-neox',
      [set('gptneox.attention.key_length', 32)],
      /keys of 32 numbers and values of 16/,
    ],
    [
      'half a head turned in qwen2',
      'qwen2',
      [set('qwen2.rope.dimension_count', 8)],
      /rope\.dimension_count is 8, but a head has 16/,
    ],
    ['half a head turned in qwen3', 'qwen3', [set('qwen3.rope.dimension_count', 8)], /rope\.dimension_count is 8/],
    [
      'half a head turned in starcoder2',
      'llama',
      [called('starcoder2'), set('starcoder2.rope.dimension_count', 4)],
      /dimension_count is 4/,
    ],
    [
      'half a head turned in codeshell',
      'gpt-neox',
      [called('codeshell'), set('codeshell.rope.dimension_count', 4)],
      /dimension_count is 4/,
    ],
    ['no number turned in windows', 'gemma2', [set('gemma2.rope.dimension_count_swa', 0)], /dimension_count_swa is 0/],
    [
      'more than a head turned in windows',
      'gemma2',
      [set('gemma2.rope.dimension_count_swa', 64)],
      /dimension_count_swa is 64/,
    ],
    [
      'an odd number turned in windows',
      'gemma3',
      [set('gemma3.rope.dimension_count_swa', 7)],
      /dimension_count_swa is 7/,
    ],
    ['no experts, where it must have some', 'llama', [called('smallthinker')], /no experts \(expert_count\)/],
    ['no sections of a head for pictures', 'llama', [called('paddleocr')], /rope\.dimension_sections/],
    [
      'empty sections',
      'qwen2-vl',
      [numbers('qwen2vl.rope.dimension_sections', 0, 0, 0, 0)],
      /rope\.dimension_sections/,
    ],
    ['no matrix of queries', 'phi3', [lost(/^blk\.1\.attn_qkv\.weight$/)], /no tensor 'blk\.1\.attn_qkv\.weight'/],
    ['a bias in F16', 'qwen2', [tensor('blk.0.attn_q.bias', [64], F16)], /'blk\.0\.attn_q\.bias' is not float32/],
    [
      'a bias in F16 with a second axis',
      'qwen2',
      [tensor('blk.0.attn_q.bias', [64, 1], F16)],
      /'blk\.0\.attn_q\.bias' is not float32/,
    ],
    [
      'a norm in Q8_0 with a second axis',
      'llama',
      [tensor('blk.1.ffn_norm.weight', [64, 1], Q8_0)],
      /'blk\.1\.ffn_norm\.weight' is not float32/,
    ],
    ['a scale in F16', 'gemma2', [tensor('blk.0.attn_q.scale', [1], F16)], /'blk\.0\.attn_q\.scale' is not float32/],
    ['a bias as a matrix', 'qwen2', [tensor('blk.0.attn_q.bias', [64, 64])], /'blk\.0\.attn_q\.bias' is 64 x 64, but/],
    [
      'a matrix of whole numbers',
      'llama',
      [tensor('blk.0.attn_k.weight', [64, 32], I32)],
      /'blk\.0\.attn_k\.weight' has type I32/,
    ],
    ['two tokens alike up to a NUL', 'llama', [token(40, 'ab\0x'), token(41, 'ab\0y')], /occurs twice .* NUL/],
    ['a token alike another up to its NUL', 'pixtral', [token(40, 'zz'), token(41, 'zz\0')], /occurs twice .* NUL/],
  ])('%s', async (_, base, changes, why) => {
    const path = changed(readFileSync(join(FIXTURES, `${base}.gguf`)), changes);
    await expectError(() => checkModelFile(path), 'GGUF_INVALID', why);
  });

  test('a vocabulary of a size that is not that of its embeddings, and no texts', async () => {
    const changes = [without('tokenizer.ggml.tokens'), set('llama.vocab_size', 4e8)];
    const path = changed(readFileSync(join(FIXTURES, 'llama.gguf')), changes);
    await expectError(() => checkModelFile(path), 'GGUF_INVALID', /vocab_size is 400000000, its embeddings are 288/);
  });

  test('one token with a NUL is none of the causes', () => {
    expect(() =>
      checkModelFile(changed(readFileSync(join(FIXTURES, 'llama.gguf')), [token(40, 'ab\0x')])),
    ).not.toThrow();
  });
});

describe('an mmproj with', () => {
  const written = (name: string) => {
    const path = join(folder, 'tower.gguf');
    writeTower(path, name, 64);
    return readFileSync(path);
  };
  const [head, merge, factor] = ['attention.head_dim', 'spatial_merge_size', 'projector.scale_factor'].map(
    (key) => `clip.vision.${key}`,
  ) as [string, string, string];
  test.each<[string, string, Change[], RegExp]>([
    ['heads of another size', 'mlp', [set(head, 64)], /heads of 64 \(attention\.head_dim\) are not 16 numbers/],
    ['heads of another size in one matrix', 'qwen3vl_merger', [set(head, 12)], /heads of 12/],
    [
      'another width than its projector',
      'qwen2vl_merger',
      [set('clip.vision.projection_dim', 48)],
      /projection_dim is 48, but 'mm\.2\.weight' gives 64/,
    ],
    ['a bias of another length', 'mlp', [tensor('v.blk.0.attn_q.bias', [8])], /'v\.blk\.0\.attn_q\.bias' is 8, but/],
    [
      'a bias in F16 with a second axis',
      'mlp',
      [tensor('v.blk.0.ln1.bias', [16, 1], F16)],
      /'v\.blk\.0\.ln1\.bias' is not float32/,
    ],
    [
      'a bias behind its norm of another length',
      'mlp',
      [tensor('v.post_ln.weight', [16]), tensor('v.post_ln.bias', [48])],
      /'v\.post_ln\.bias' is 48/,
    ],
    ['a bias before its tower of another length', 'llama4', [tensor('v.pre_ln.bias', [32])], /'v\.pre_ln\.bias' is 32/],
    ['a norm as a matrix', 'glm4v', [tensor('v.blk.0.ls1.weight', [32, 32])], /'v\.blk\.0\.ls1\.weight' is 32 x 32/],
    [
      'a patch merger of another kind of Pixtral',
      'pixtral',
      [tensor('mm.patch_merger.weight', [64, 16])],
      /spatial_merge_size is missing/,
    ],
    ['a patch merger and no norm', 'pixtral-merged', [lost(/^mm\.input_norm/)], /no tensor 'mm\.input_norm\.weight'/],
    ['a merge without its matrix', 'pixtral', [set(merge, 2)], /spatial_merge_size is 2, but it has no patch merger/],
    [
      'no scale factor',
      'idefics3',
      [without(factor)],
      /scale_factor is missing, but 'mm\.model\.fc\.weight' reads \d+/,
    ],
    ['a scale factor of 1', 'idefics3', [set(factor, 1)], /scale_factor is 1, but/],
    ['no scale factor in InternVL', 'internvl', [without(factor)], /scale_factor is missing/],
    ['another merge than the matrix', 'qwen3vl_merger', [set(merge, 3)], /spatial_merge_size is 3/],
    ['a merge that the graph does not know', 'qwen2.5vl_merger', [set(merge, 1)], /spatial_merge_size is 1/],
    [
      'fewer tiles at most than at least',
      'internvl',
      [set('clip.vision.preproc_min_tiles', 99), set('clip.vision.preproc_max_tiles', 12)],
      /99 to 12 tiles/,
    ],
    ['tiles without end', 'internvl', [set('clip.vision.preproc_max_tiles', 2 ** 31)], /to 2147483648 tiles/],
    ['a projector whose tensors it lacks', 'mlp', [projector('idefics3')], /no tensor 'mm\.model\.fc\.weight'/],
    [
      'a convolutional projector whose tower it lacks',
      'gemma3',
      [projector('gemma3nv')],
      /no tensor 'v\.conv_stem\.conv\.weight'/,
    ],
  ])('%s', async (_, base, changes, why) => {
    const path = changed(written(base), changes);
    await expectError(() => checkProjectorFile(path), 'MMPROJ_INVALID', why);
  });

  test.each(Object.keys(towers(64)))('%s as it should be passes', (name) => {
    writeFileSync(join(folder, 'tower.gguf'), written(name));
    expect(() => checkProjectorFile(join(folder, 'tower.gguf'))).not.toThrow();
  });
});

test('the fixtures of all families pass', () => {
  const names = readdirSync(FIXTURES).filter((name) => name.endsWith('.gguf'));
  expect(names.length).toBeGreaterThan(30);
  for (const name of names) (name.includes('mmproj') ? checkProjectorFile : checkModelFile)(join(FIXTURES, name));
});
