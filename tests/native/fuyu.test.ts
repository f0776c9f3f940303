// Persimmon's norms in the eval callback, and Fuyu's pictures: what must be refused, and sizes at the edge.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadModel } from '../../src/model/load-model.js';
import { native } from '../../src/native/index.js';
import type { Segment } from '../../src/prompt/prompt.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { gguf, type Tensor } from './gguf-writer.js';
import { fixture, load, picture } from './helpers.js';

const folder = await temporaryFolder();
let count = 0;
const put = (bytes: Buffer) => {
  const path = join(folder, `${count++}.gguf`);
  writeFileSync(path, bytes);
  return path;
};
const options = { device: 'cpu', threads: 1 } as const;

describe('norms of queries and keys', () => {
  const whole = readFileSync(fixture('persimmon.gguf'));
  const spoil = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(whole);
    change(bytes);
    return loadModel(put(bytes), options);
  };
  const behind = (bytes: Buffer, key: string) => bytes.indexOf(key) + key.length;
  const rename = (from: string, to: string) => (bytes: Buffer) => void bytes.write(to, bytes.indexOf(from));

  test.each<[string, RegExp, (bytes: Buffer) => void]>([
    ['a list is missing', /q_bias is missing/, rename('xpatch.qk_norm.q_bias', 'xpatch.qk_norm.q_bixs')],
    ['the epsilon is missing', /epsilon is undefined/, rename('xpatch.qk_norm.epsilon', 'xpatch.qk_norm.epsilom')],
    [
      'a value is NaN',
      /k_weight holds NaN/,
      (bytes) => void bytes.writeFloatLE(NaN, behind(bytes, 'xpatch.qk_norm.k_weight') + 16 + 4 * 7),
    ],
    [
      'the epsilon is negative',
      /epsilon is -1/,
      (bytes) => void bytes.writeFloatLE(-1, behind(bytes, 'xpatch.qk_norm.epsilon') + 4),
    ],
    [
      'a list of integers',
      /q_weight is missing or no list of float32/,
      (bytes) => void bytes.writeUInt32LE(5, behind(bytes, 'xpatch.qk_norm.q_weight') + 4),
    ],
    ['a bias is not there', /has no 'blk.1.attn_q.bias'/, rename('blk.1.attn_q.bias', 'blk.1.attn_q.bixs')],
    [
      'the projection has another name',
      /has no 'blk.2.attn_k.weight'/,
      rename('blk.2.attn_k.weight', 'blk.2.attn_x.weight'),
    ],
    [
      'other heads',
      /not alike/,
      (bytes) => void bytes.writeUInt32LE(8, behind(bytes, 'nemotron.attention.head_count') + 4),
    ],
  ])('%s: refused before llama.cpp sees the file', async (_, why, change) => {
    await expectError(() => spoil(change), 'GGUF_INVALID', why);
  });

  test('a list of another length, and another architecture', async () => {
    const lists = Object.fromEntries(
      ['q_weight', 'q_bias', 'k_weight', 'k_bias'].map((name) => [`xpatch.qk_norm.${name}`, new Float32Array(47)]),
    );
    const metadata = (architecture: string) => ({
      'general.architecture': architecture,
      [`${architecture}.block_count`]: 3,
      [`${architecture}.embedding_length`]: 64,
      [`${architecture}.context_length`]: 64,
      [`${architecture}.attention.head_count`]: 4,
      ...lists,
      'xpatch.qk_norm.epsilon': Float32Array.of(1e-5),
    });
    const tensors = [{ name: 'token_embd.weight', shape: [64, 4], data: new Float32Array(256) }];
    for (const [architecture, why] of [
      ['nemotron', /has 47 values, 3 layers with heads of 16 need 48/],
      ['llama', /for 'nemotron', but is 'llama'/],
    ] as const) {
      const path = put(gguf(metadata(architecture), tensors));
      await expect(loadModel(path, options)).rejects.toMatchObject({
        code: 'GGUF_INVALID',
        message: expect.stringMatching(why),
      });
    }
  });

  test('a graph in which they are not applied gives an error, not states', async () => {
    const { addon } = native();
    const list = new Float32Array(3 * 16).fill(1);
    const qkNorm = { nLayers: 3, headSize: 16, epsilon: 1e-5, qWeight: list, qBias: list, kWeight: list, kBias: list };
    const from = { path: fixture('llama.gguf'), device: 'cpu', gpuLayers: 0 };
    // Llama's projections have no bias: there is no node that the norm could belong to.
    const model = await addon.modelLoad({ ...from, qkNorm }, () => {}, new Int32Array(1));
    const sizes = { nCtx: 64, nUbatch: 64, nSeq: 1, threads: 1, flashAttention: 'off', kvType: 'f32' } as const;
    const context = await addon.contextCreate(model, sizes);
    const job = {
      clear: true,
      tokens: Int32Array.of(5, 6),
      positions: Int32Array.of(0, 1),
      sequences: Int32Array.of(0, 0),
      sequenceCounts: Int32Array.of(1, 1),
      outputs: Uint8Array.of(0, 1),
    };
    await expect(addon.contextDecode(context, job)).rejects.toMatchObject({
      code: 'HOOK_NOT_FIRED',
      message: expect.stringContaining('queries of layer 0 was applied 0 times'),
    });
    await addon.contextDispose(context);
    await addon.modelDispose(model);

    const wrong = {
      ...qkNorm,
      nLayers: 2,
      qWeight: list.subarray(16),
      qBias: list.subarray(16),
      kWeight: list.subarray(16),
      kBias: list.subarray(16),
    };
    const loading = addon.modelLoad({ ...from, qkNorm: wrong }, () => {}, new Int32Array(1));
    await expect(loading).rejects.toMatchObject({ code: 'GGUF_INVALID' });
  });

  test('what was generated with them goes on as one prompt would', async () => {
    const model = await load('persimmon');
    const context = await model.createContext({ nCtx: 128, kvType: 'f32' });
    const prompt = await model.prompt({ tokens: [1, 30, 40, 50] });
    const [{ tokens }] = await context.generate([{ prompt }], { maxTokens: 6 });
    for (const [i, token] of tokens.entries()) {
      const longer = await model.prompt({ tokens: [1, 30, 40, 50, ...tokens.slice(0, i)] });
      const [{ top }] = await context.pass([{ prompt: longer, topK: 1 }]);
      expect(top?.[0]?.token).toBe(token);
    }
  });
});

describe('pictures', () => {
  const rgb = (width: number, height: number, value = 200) => ({
    image: { data: new Uint8Array(width * height * 3).fill(value), width, height },
  });
  const pictureOf = (segments: readonly Segment[]) =>
    segments.find((s) => s.kind === 'image') as Segment & { kind: 'image' };
  const open = () => load('mantis-fuyu', { vision: true });

  test.each([
    [1, 1, 1, 1],
    [30, 30, 1, 1],
    [31, 30, 2, 1],
    [224, 168, 8, 6],
    [960, 90, 32, 3],
    // Scaled to 1920 x 1 and to 1 x 1080.
    [20_000, 20, 64, 1],
    [20, 20_000, 1, 36],
  ])('%i x %i pixels are %i x %i patches, each line with a newline row', async (width, height, columns, lines) => {
    const model = await open();
    const { segments, pictures } = await model.prompt(['Q:', rgb(width, height)]);
    const { nRows, nPositions, embeddings, nonCausal } = pictureOf(segments);
    expect({ nRows, nPositions, nonCausal }).toEqual({
      nRows: lines * (columns + 1),
      nPositions: nRows,
      nonCausal: false,
    });
    expect(embeddings.every(Number.isFinite)).toBe(true);
    const grid = pictures[0]?.grid as unknown[];
    const newlines = grid.flatMap((place, row) => (place ? [] : [row]));
    expect(newlines).toEqual(Array.from({ length: lines }, (_, line) => line * (columns + 1) + columns));
    const row = (i: number) => Array.from(embeddings.subarray(i * model.info.nEmbd, (i + 1) * model.info.nEmbd));
    for (const newline of newlines) expect(row(newline)).toEqual(row(columns));
  });

  test('a picture that vanishes when it is scaled is refused', async () => {
    const model = await open();
    await expectError(() => model.prompt(rgb(40_000, 10)), 'IMAGE_INVALID', /vanishes/);
  });

  test('the mark of a task template is the colon before the answer, in a prompt with pictures too', async () => {
    const model = await open();
    const image = { image: picture('grid-a.png') };
    const prompt = await model.prompt(['Q:', image, '\nA:Sweden\n\nQ:', image, '\nA:', { mark: 'delimiter' }]);
    expect(prompt.position('delimiter')).toBe(prompt.length - 1);
    expect(model.detokenize([prompt.tokens[prompt.length - 1] as number])).toContain(':');
    expect(model.detokenize(prompt.tokens.filter((token) => token >= 0))).toBe(
      '<s> Q:image 0: |IMAGE||ENDOFIMAGE|<s> \nA:Sweden\n\nQ:image 1: |IMAGE||ENDOFIMAGE|<s> \nA:',
    );
    expect(model.imageEncodes).toBe(1);
  });
});

describe('an mmproj', () => {
  type Metadata = Parameters<typeof gguf>[0];
  const metadata: Metadata = {
    'general.architecture': 'clip',
    'clip.has_vision_encoder': true,
    'clip.projector_type': 'fuyu',
    'clip.vision.patch_size': 2,
    'clip.vision.image_mean': Float32Array.of(0.5, 0.5, 0.5),
    'clip.vision.image_std': Float32Array.of(0.5, 0.5, 0.5),
    'xpatch.fuyu.max_height': 10,
    'xpatch.fuyu.max_width': 20,
    'xpatch.prompt.format': 'mantis',
    'xpatch.image.begin_token': 5,
    'xpatch.image.end_token': 6,
  };
  const tensor = (name: string, ...shape: number[]): Tensor => ({
    name,
    shape,
    data: new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5),
  });
  const tensors = [tensor('mm.patch_embd.weight', 12, 64), tensor('mm.patch_embd.bias', 64), tensor('mm.newline', 64)];
  const attempt = async (keys: Metadata, list: Tensor[], cut = 0) => {
    const bytes = gguf(keys, list);
    const mmproj = put(bytes.subarray(0, bytes.length - cut));
    const model = await loadModel(fixture('persimmon.gguf'), { ...options, mmproj });
    await model.dispose();
  };
  const without = (key: string): Metadata =>
    Object.fromEntries(Object.entries(metadata).filter(([name]) => name !== key));

  test('that fits is taken', () => attempt(metadata, tensors));

  test.each<[string, RegExp, Metadata, Tensor[]]>([
    ['no newline', /no tensor 'mm.newline'|expected 0/, metadata, tensors.slice(0, 2)],
    ['no bias', /no tensor 'mm.patch_embd.bias'/, metadata, tensors.filter(({ name }) => !name.endsWith('bias'))],
    ['patches of another size', /is 12 x 64, expected 27 x 64/, { ...metadata, 'clip.vision.patch_size': 3 }, tensors],
    ['no size of patches', /patch_size is undefined/, without('clip.vision.patch_size'), tensors],
    ['no bound', /max_width is undefined/, without('xpatch.fuyu.max_width'), tensors],
    ['no mean', /image_mean is missing/, without('clip.vision.image_mean'), tensors],
    [
      'a spread of zero',
      /image_std holds 0/,
      { ...metadata, 'clip.vision.image_std': Float32Array.of(0.5, 0, 0.5) },
      tensors,
    ],
    ['one half of the frame', /no token undefined/, without('xpatch.image.end_token'), tensors],
    ['a frame without a format', /format is 'undefined'/, without('xpatch.prompt.format'), tensors],
    ['an unknown format', /format is 'mantra'/, { ...metadata, 'xpatch.prompt.format': 'mantra' }, tensors],
    ['a token that the model has not', /no token 71111/, { ...metadata, 'xpatch.image.begin_token': 71_111 }, tensors],
    [
      'of a model with other states',
      /rows have 32 numbers, the model's 64/,
      metadata,
      [tensor('mm.patch_embd.weight', 12, 32), tensor('mm.patch_embd.bias', 32), tensor('mm.newline', 32)],
    ],
    [
      'with NaN',
      /holds NaN/,
      metadata,
      [{ ...(tensors[0] as Tensor), data: new Float32Array(768).fill(NaN) }, ...tensors.slice(1)],
    ],
  ])('%s: MMPROJ_INVALID', async (_, why, keys, list) => {
    await expectError(() => attempt(keys, list), 'MMPROJ_INVALID', why);
  });

  test('that was not downloaded whole: GGUF_INVALID', () =>
    expectError(() => attempt(metadata, tensors, 300), 'GGUF_INVALID', /truncated/));
});

test('beside a decoder that is not that of Fuyu: MMPROJ_INVALID, also where the sizes fit', async () => {
  const mmproj = fixture('mantis-fuyu.mmproj.gguf');
  await expectError(() => load('idefics2', { mmproj }), 'MMPROJ_INVALID', /not a llama: it belongs to another model/);
});
