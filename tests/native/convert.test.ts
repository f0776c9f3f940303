// Conversions against what Python makes of the same checkpoints: llama.cpp's own converter for the text of Idefics2, numpy
// for what that one cannot do (tests/reference/conversion.py).

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, describe, expect, jest, test } from '@jest/globals';
import { type ConvertOptions, convertCheckpoint } from '../../src/convert/convert.js';
import { GGML } from '../../src/gguf/tensor-types.js';
import { loadModel } from '../../src/model/load-model.js';
import { RunLock } from '../../src/util/run-lock.js';
import { expectError } from '../unit/helpers.js';
import { CHECKPOINTS, copyOf, edit } from './checkpoints.js';
import { ggufContents } from './gguf-contents.js';

jest.setTimeout(300_000);
const root = mkdtempSync(join(tmpdir(), 'xpatch-convert-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

type Expected = Record<string, { keys?: Record<string, unknown>; tensors: Record<string, [string, number[], string]> }>;
const expected = JSON.parse(readFileSync(join(CHECKPOINTS, 'expected.json'), 'utf8')) as Expected;

let count = 0;
const fresh = () => join(root, String(count++));
async function convert(name: string, options: ConvertOptions, output = fresh()) {
  const result = await convertCheckpoint(join(CHECKPOINTS, name), output, { threads: 2, ...options });
  const contents = (kind: string) => ggufContents(result.files.find((file) => file.kind === kind)?.path as string);
  return { ...result, output, contents };
}
const copy = (name: string) => copyOf(name, fresh());

function asNumbers(tensors: Expected[string]['tensors']) {
  return Object.fromEntries(
    Object.entries(tensors).map(([name, [type, shape, digest]]) => [
      name,
      [GGML[type as keyof typeof GGML], shape, digest],
    ]),
  );
}

describe('Idefics2', () => {
  test.each(['f32', 'f16', 'q8_0'] as const)(
    'text in %s: every key and tensor as llama.cpp converts it',
    async (type) => {
      const { files, contents } = await convert('idefics2', { type });
      expect(files.map(({ path }) => basename(path))).toEqual([
        `idefics2-${type}.gguf`,
        `mmproj-idefics2-${type}.gguf`,
      ]);
      const { keys, tensors } = contents('model');
      expect(keys).toEqual(expected[`idefics2-${type}`]?.keys);
      expect(tensors).toEqual(asNumbers((expected[`idefics2-${type}`] as Expected[string]).tensors));
    },
  );

  test('picture encoder', async () => {
    const { contents } = await convert('idefics2', { type: 'f32' });
    const { keys, tensors } = contents('mmproj');
    expect(tensors).toEqual(asNumbers((expected['mmproj-idefics2-f32'] as Expected[string]).tensors));
    expect(keys).toMatchObject({
      'clip.projector_type': 'idefics2',
      'clip.vision.image_size': 56,
      'clip.vision.projection_dim': 64,
      'clip.vision.attention.layer_norm_epsilon': Math.fround(1e-6),
      'clip.vision.resampler.n_latents': 4,
      'clip.vision.resampler.head_dim': 16,
      'clip.vision.resampler.layer_norm_rms_epsilon': Math.fround(1e-5),
      'xpatch.idefics2.shortest_edge': 28,
      'xpatch.idefics2.longest_edge': 56,
      'xpatch.image.begin_token': 320,
      'xpatch.image.end_token': 320,
    });
  });

  test('without tokenizer.model the same comes from tokenizer.json, scores only in their order', async () => {
    const folder = copy('idefics2');
    rmSync(join(folder, 'tokenizer.model'));
    const { files } = await convertCheckpoint(folder, fresh(), { type: 'f32' });
    const { keys } = ggufContents(files[0]?.path as string);
    const { 'tokenizer.ggml.scores': scores, ...rest } = keys;
    const { 'tokenizer.ggml.scores': wanted, ...wantedRest } = (expected['idefics2-f32'] as Expected[string])
      .keys as typeof keys;
    expect(rest).toEqual(wantedRest);
    expect(scores).toMatchObject({ length: (wanted as { length: number }).length });
    const [fromJson, fromModel] = await Promise.all(
      [files[0]?.path as string, (await convert('idefics2', { type: 'f32' })).files[0]?.path as string].map((path) =>
        loadModel(path, { device: 'cpu', threads: 1 }),
      ),
    );
    try {
      for (const text of ['Q:Sweden\nA:Stockholm', 'The capital  city of ÅÄ 🙂', '<image>the<end_of_utterance>']) {
        expect(fromJson?.tokenize(text)).toEqual(fromModel?.tokenize(text));
      }
    } finally {
      await fromJson?.dispose();
      await fromModel?.dispose();
    }
  });

  test('q4_k: what rows of 64 and 96 can be, as llama-quantize falls back, and it says so', async () => {
    const { contents, notes } = await convert('idefics2', { type: 'q4_k' });
    const { tensors, keys } = contents('model');
    expect(keys['general.file_type']).toBe(15);
    expect(tensors['token_embd.weight']?.[0]).toBe(GGML.Q5_0);
    expect(tensors['output.weight']?.[0]).toBe(GGML.Q8_0);
    expect(tensors['blk.0.attn_q.weight']?.[0]).toBe(GGML.Q5_0);
    expect(tensors['blk.1.ffn_down.weight']?.[0]).toBe(GGML.Q8_0);
    expect(notes.join('\n')).toMatch(/Q5_0 instead of Q4_K.*\n.*Q8_0 instead of Q6_K/);
    // Rows of 48 fit no block at all.
    expect(contents('mmproj').tensors['v.blk.0.ffn_down.weight']?.[0]).toBe(GGML.F16);
    expect(notes.join('\n')).toMatch(/F16 instead of Q8_0/);
  });
});

describe('Persimmon and Fuyu', () => {
  /** What convert_hf_to_gguf.py writes of every model; the reference has only what the architecture needs. */
  const GENERAL = /^general\.|^tokenizer\.ggml\.add_|^nemotron\.rope\.scaling\.type$/;
  const specific = (keys: Record<string, unknown>) =>
    Object.fromEntries(
      Object.entries(keys).filter(([key]) => !GENERAL.test(key) && key !== 'tokenizer.huggingface.json'),
    );

  test.each(['persimmon', 'mantis-fuyu'])('%s: decoder', async (name) => {
    const { contents } = await convert(name, { type: 'f32' });
    const { keys, tensors } = contents('model');
    const reference = expected[`${name}-f32`] as Expected[string];
    expect(tensors).toEqual(asNumbers(reference.tensors));
    expect(specific(keys)).toEqual({
      ...specific(reference.keys as Record<string, unknown>),
      // The runtime tokenises by tokenizer.json; these are for showing tokens only.
      'tokenizer.ggml.scores': keys['tokenizer.ggml.scores'],
    });
    expect(keys['tokenizer.ggml.add_bos_token']).toBe(name === 'persimmon');
    expect(keys['tokenizer.huggingface.json']).toBe(readFileSync(join(CHECKPOINTS, name, 'tokenizer.json'), 'utf8'));
  });

  test('patches, the newline row and the tokens around pictures', async () => {
    const { contents } = await convert('mantis-fuyu', { type: 'f32' });
    const { keys, tensors } = contents('mmproj');
    const reference = expected['mmproj-mantis-fuyu-f32'] as Expected[string];
    expect(tensors).toEqual(asNumbers(reference.tensors));
    expect(keys).toMatchObject(specific(reference.keys as Record<string, unknown>));
  });

  test('Adept’s layout, settings beside the rest and other names, gives the same', async () => {
    const folder = copy('mantis-fuyu');
    edit(folder, 'config.json', (config: Record<string, unknown>) => {
      Object.assign(config, config.text_config, { architectures: ['FuyuForCausalLM'], model_type: 'fuyu' });
      delete config.text_config;
    });
    const bytes = readFileSync(join(folder, 'model.safetensors'));
    const length = Number(bytes.readBigUInt64LE());
    const header = bytes.toString('utf8', 8, 8 + length);
    const renamed = header.includes('"model.language_model.')
      ? header
          .replaceAll('"model.language_model.', '"language_model.model.')
          .replaceAll('"lm_head.', '"language_model.lm_head.')
      : header
          .replaceAll('"language_model.model.', '"model.language_model.')
          .replaceAll('"language_model.lm_head.', '"lm_head.');
    expect(renamed).not.toBe(header);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(Buffer.byteLength(renamed)));
    writeFileSync(
      join(folder, 'model.safetensors'),
      Buffer.concat([size, Buffer.from(renamed), bytes.subarray(8 + length)]),
    );
    const { files } = await convertCheckpoint(folder, fresh(), { type: 'f32' });
    const { contents } = await convert('mantis-fuyu', { type: 'f32' });
    expect(ggufContents(files[0]?.path as string).tensors).toEqual(contents('model').tensors);
    expect(ggufContents(files[1]?.path as string)).toEqual(contents('mmproj'));
  });
});

describe('what cannot be converted is refused before anything is written', () => {
  const refuse = async (folder: string, code: Parameters<typeof expectError>[1], message: RegExp) => {
    const output = fresh();
    await expectError(() => convertCheckpoint(folder, output, { type: 'q8_0' }), code, message);
    expect(existsSync(output)).toBe(false);
  };

  test('no folder, a file, no config, no weights, pickled weights', async () => {
    await refuse(join(root, 'nowhere'), 'FILE_NOT_FOUND', /no folder/);
    await refuse(join(CHECKPOINTS, 'expected.json'), 'CHECKPOINT_INVALID', /not a folder/);
    const folder = copy('persimmon');
    rmSync(join(folder, 'model.safetensors'));
    await refuse(folder, 'CHECKPOINT_INVALID', /neither model.safetensors nor/);
    writeFileSync(join(folder, 'pytorch_model.bin'), '');
    await refuse(folder, 'CHECKPOINT_INVALID', /pickled.*save_pretrained/);
    rmSync(join(folder, 'config.json'));
    await refuse(folder, 'CHECKPOINT_INVALID', /no config.json/);
  });

  test('other architectures, with the way to llama.cpp’s converter', async () => {
    const folder = copy('persimmon');
    edit(folder, 'config.json', (config: Record<string, unknown>) => {
      config.architectures = ['Qwen2ForCausalLM'];
    });
    await refuse(folder, 'ARCHITECTURE_UNSUPPORTED', /Qwen2ForCausalLM.*convert_hf_to_gguf\.py/);
    edit(folder, 'config.json', (config: Record<string, unknown>) => {
      config.architectures = ['PersimmonForCausalLM'];
      config.quantization_config = { bits: 4 };
    });
    await refuse(folder, 'CHECKPOINT_INVALID', /quantised/);
  });

  test('missing, truncated and foreign shards', async () => {
    const folder = copy('idefics2');
    const [first, second] = readdirSync(folder).filter((name) => name.endsWith('.safetensors')) as [string, string];
    const whole = readFileSync(join(folder, first));
    rmSync(join(folder, first));
    await refuse(folder, 'CHECKPOINT_INVALID', /1 of 4 shards are missing: model-00001/);
    writeFileSync(join(folder, first), whole);
    truncateSync(join(folder, first), whole.length - 10);
    await refuse(folder, 'SAFETENSORS_INVALID', /cut off/);
    writeFileSync(join(folder, first), readFileSync(join(folder, second)));
    await refuse(folder, 'CHECKPOINT_INVALID', /is both in /);
    writeFileSync(join(folder, first), whole);
    edit(folder, 'model.safetensors.index.json', (index: Record<string, Record<string, unknown>>) => {
      (index.weight_map as Record<string, unknown>)['lm_head.weight'] = '../persimmon/model.safetensors';
    });
    await refuse(folder, 'CHECKPOINT_INVALID', /not a shard in this folder/);
  });

  test('tensors that config.json does not describe', async () => {
    const folder = copy('persimmon');
    const set = (values: Record<string, unknown>) =>
      edit(folder, 'config.json', (config: Record<string, unknown>) => void Object.assign(config, values));
    set({ intermediate_size: 64 });
    await refuse(folder, 'CHECKPOINT_INVALID', /dense_h_to_4h.weight' is 48 x 32, but .* 64 x 32/);
    set({ intermediate_size: 48, num_hidden_layers: 3 });
    await refuse(folder, 'CHECKPOINT_INVALID', /no tensor 'model.layers.2/);
    set({ num_hidden_layers: 1 });
    await refuse(folder, 'CHECKPOINT_INVALID', /tensors that this architecture does not have: .*layers\.1\./);
    set({ hidden_size: '\u001b[2J' });
    await refuse(folder, 'CHECKPOINT_INVALID', /hidden_size is "[^\p{Cc}]*"/u);
    set({ hidden_size: 32, num_hidden_layers: 2, hidden_act: 'gelu' });
    await refuse(folder, 'CHECKPOINT_INVALID', /hidden_act is "gelu"/);
    set({ hidden_act: 'relu2', rope_parameters: { rope_type: 'yarn', factor: 2 } });
    await refuse(folder, 'CHECKPOINT_INVALID', /rope_type is "yarn"/);
  });

  test('pictures that the encoder could not take, and nothing is left of it', async () => {
    const folder = copy('idefics2');
    edit(folder, 'preprocessor_config.json', (settings: Record<string, unknown>) => {
      settings.size = { longest_edge: 980, shortest_edge: 378 };
    });
    const output = fresh();
    await expectError(() => convertCheckpoint(folder, output), 'MMPROJ_INVALID', /378 to 980 pixels/);
    expect(readdirSync(output)).toEqual([]);
  });

  test('tokenizers', async () => {
    const folder = copy('persimmon');
    const json = readFileSync(join(folder, 'tokenizer.json'), 'utf8');
    writeFileSync(join(folder, 'tokenizer.json'), json.slice(0, 100));
    await refuse(folder, 'CHECKPOINT_INVALID', /tokenizer.json is not JSON/);
    writeFileSync(join(folder, 'tokenizer.json'), json.replace('"Unigram"', '"WordPiece"'));
    await refuse(folder, 'CHECKPOINT_INVALID', /WordPiece/);
    writeFileSync(join(folder, 'tokenizer.json'), json.replace('"Stockholm"', '"Sweden"'));
    await refuse(folder, 'CHECKPOINT_INVALID', /both "Sweden"/);
    rmSync(join(folder, 'tokenizer.json'));
    await refuse(folder, 'CHECKPOINT_INVALID', /neither tokenizer.model nor tokenizer.json/);
    const idefics2 = copy('idefics2');
    truncateSync(join(idefics2, 'tokenizer.model'), 101);
    await refuse(idefics2, 'CHECKPOINT_INVALID', /tokenizer.model is not a SentencePiece model/);
    const fuyu = copy('mantis-fuyu');
    writeFileSync(
      join(fuyu, 'tokenizer.json'),
      readFileSync(join(fuyu, 'tokenizer.json'), 'utf8').replaceAll('|NEWLINE|', '|OTHER|'),
    );
    await refuse(fuyu, 'CHECKPOINT_INVALID', /has no \|NEWLINE\|/);
  });
});

describe('what is there already', () => {
  test('is not written over', async () => {
    const { output, files } = await convert('persimmon', { type: 'f16' });
    const before = statSync(files[0]?.path as string).mtimeMs;
    await expectError(() => convert('persimmon', { type: 'f16' }, output), 'FILE_WRITE', /already.*Remove it/);
    expect(statSync(files[0]?.path as string).mtimeMs).toBe(before);
    expect(readdirSync(output)).toEqual(['persimmon-f16.gguf']);
  });

  test('an interrupted conversion leaves no file under its final name, and goes on', async () => {
    const output = fresh();
    const stop = new AbortController();
    const onProgress = () => stop.abort();
    await expectError(
      () => convert('idefics2', { type: 'f16', threads: 1, signal: stop.signal, onProgress }, output),
      'ABORTED',
      /interrupted/,
    );
    expect(readdirSync(output).sort()).toEqual([
      'idefics2-f16.gguf.part',
      'idefics2-f16.part.json',
      'mmproj-idefics2-f16.gguf.part',
    ]);
    const { resumedFrom, contents } = await convert('idefics2', { type: 'f16' }, output);
    expect(resumedFrom).toBeGreaterThan(0);
    expect(readdirSync(output).sort()).toEqual(['idefics2-f16.gguf', 'mmproj-idefics2-f16.gguf']);
    expect(contents('model').tensors).toEqual(asNumbers((expected['idefics2-f16'] as Expected[string]).tensors));
  });

  test('of two processes with one folder, one is refused', async () => {
    const output = fresh();
    mkdirSync(output);
    const lock = await RunLock.acquire(output);
    await expectError(() => convert('persimmon', { type: 'f16' }, output), 'RUN_BUSY', /process \d+ .*has it/);
    lock.release();
    expect((await convert('persimmon', { type: 'f16' }, output)).resumedFrom).toBe(0);
  });

  test('a conversion of other weights does not go on with what is left of these', async () => {
    const output = fresh();
    const stop = new AbortController();
    const folder = copy('persimmon');
    const run = (options: ConvertOptions) => convertCheckpoint(folder, output, { type: 'f32', threads: 1, ...options });
    await expectError(() => run({ signal: stop.signal, onProgress: () => stop.abort() }), 'ABORTED', /interrupted/);
    const bytes = readFileSync(join(folder, 'model.safetensors'));
    bytes[bytes.length - 2] = (bytes[bytes.length - 2] as number) ^ 0xff;
    writeFileSync(join(folder, 'model.safetensors'), bytes);
    expect((await run({})).resumedFrom).toBe(0);
  });

  test('a value that is not finite ends it with the tensor’s name', async () => {
    const folder = copy('persimmon');
    const bytes = readFileSync(join(folder, 'model.safetensors'));
    bytes.writeUInt16LE(0x7f80, bytes.length - 2); // infinity in bfloat16
    writeFileSync(join(folder, 'model.safetensors'), bytes);
    const output = fresh();
    await expectError(
      () => convertCheckpoint(folder, output, { type: 'q8_0' }),
      'CHECKPOINT_INVALID',
      /Tensor '.*' of .* not a finite number/,
    );
    expect(readdirSync(output).filter((name) => name.endsWith('.gguf'))).toEqual([]);
  });
});
