// Checkpoints that are damaged, or that transformers would read in another way than it seems.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { convertCheckpoint } from '../../src/convert/convert.js';
import { expectError } from '../unit/helpers.js';
import { copyOf, edit } from './checkpoints.js';
import { ggufContents } from './gguf-contents.js';

const root = mkdtempSync(join(tmpdir(), 'xpatch-convert-odd-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;
const fresh = () => join(root, String(count++));
const copy = (name: string) => copyOf(name, fresh());
type Json = Record<string, unknown>;
const set = (folder: string, file: string, values: Json) =>
  edit(folder, file, (value: Json) => void Object.assign(value, values));

async function keysOf(folder: string): Promise<Json> {
  const { files } = await convertCheckpoint(folder, fresh(), { threads: 1 });
  return ggufContents(files[0]?.path as string).keys;
}

/** Nothing is left where the files would be. */
async function refuse(folder: string, code: Parameters<typeof expectError>[1], message: RegExp): Promise<void> {
  const output = fresh();
  await expectError(() => convertCheckpoint(folder, output), code, message);
  expect(existsSync(output) ? readdirSync(output) : []).toEqual([]);
}

describe('as transformers reads it', () => {
  test('a single file comes before an index of shards', async () => {
    const folder = copy('persimmon');
    writeFileSync(
      join(folder, 'model.safetensors.index.json'),
      JSON.stringify({ weight_map: { 'lm_head.weight': 'model-00001-of-00001.safetensors' } }),
    );
    expect(await keysOf(folder)).toMatchObject({ 'nemotron.block_count': 2 });
  });

  test('chat_template.jinja comes before the template of tokenizer_config.json', async () => {
    const folder = copy('persimmon');
    set(folder, 'tokenizer_config.json', { chat_template: 'old' });
    writeFileSync(join(folder, 'chat_template.jinja'), 'new');
    expect((await keysOf(folder))['tokenizer.chat_template']).toBe('new');
  });

  test('a mark of byte order is no part of a text', async () => {
    const folder = copy('persimmon');
    const json = readFileSync(join(folder, 'tokenizer.json'), 'utf8');
    writeFileSync(join(folder, 'tokenizer.json'), `\uFEFF${json}`);
    writeFileSync(join(folder, 'README.md'), '\uFEFF---\nlicense: mit\n---\n');
    expect(await keysOf(folder)).toMatchObject({ 'tokenizer.huggingface.json': json, 'general.license': 'mit' });
    writeFileSync(join(folder, 'README.md'), new Uint8Array([0xe4]));
    await refuse(folder, 'CHECKPOINT_INVALID', /README\.md is not a text in UTF-8/);
  });
});

test.each<[string, Json, RegExp]>([
  ['idefics2', { do_normalize: false }, /do_normalize is false; only true/],
  ['idefics2', { do_resize: false }, /do_resize is false/],
  ['idefics2', { rescale_factor: 1 }, /rescale_factor is 1; only 0\.0039/],
  ['idefics2', { resample: 3 }, /resample is 3/],
  ['idefics2', { image_std: [0.5, 0, 0.5] }, /image_std is \[0\.5,0,0\.5\]/],
  ['mantis-fuyu', { do_rescale: false }, /do_rescale is false/],
  ['mantis-fuyu', { do_pad: false }, /do_pad is false/],
  ['mantis-fuyu', { padding_mode: 'edge' }, /padding_mode is "edge"/],
  ['mantis-fuyu', { patch_size: { height: 7, width: 30 } }, /patch_size\.height is 7/],
  ['mantis-fuyu', { image_std: 0 }, /image_std is 0/],
])('%s with pictures prepared by %j is refused', async (name, settings, message) => {
  const folder = copy(name);
  set(folder, 'preprocessor_config.json', settings);
  await refuse(folder, 'CHECKPOINT_INVALID', message);
});

describe('what could not be loaded is not written', () => {
  test('norms that are not finite', async () => {
    const folder = copy('persimmon');
    const path = join(folder, 'model.safetensors');
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    const [name] = Object.keys(header).filter((key) => key.endsWith('.q_layernorm.weight'));
    bytes.fill(
      0xff,
      8 + length + header[name as string].data_offsets[0],
      8 + length + header[name as string].data_offsets[1],
    );
    writeFileSync(path, bytes);
    await refuse(folder, 'CHECKPOINT_INVALID', /'model\.layers\.\d\.self_attn\.q_layernorm\.weight' holds NaN/);
  });

  test('a tokenizer that is not exact here', async () => {
    const folder = copy('persimmon');
    set(folder, 'tokenizer.json', { pre_tokenizer: { type: 'ByteLevel' } });
    await refuse(folder, 'TOKENIZER_UNSUPPORTED', /pre-tokenizer of the type 'ByteLevel'/);
  });

  test('numbers that 32 bits do not hold', async () => {
    const folder = copy('persimmon');
    set(folder, 'config.json', { layer_norm_eps: 1e39 });
    await refuse(folder, 'CHECKPOINT_INVALID', /layer_norm_eps is 1e\+39/);
  });

  test('patches that are too large', async () => {
    const folder = copy('mantis-fuyu');
    set(folder, 'config.json', { patch_size: 300 });
    await refuse(folder, 'CHECKPOINT_INVALID', /patch_size is 300/);
  });

  test('sizes that no tensor has, before lists of that length are made', async () => {
    const persimmon = copy('persimmon');
    set(persimmon, 'config.json', { vocab_size: 1 << 24 });
    await refuse(persimmon, 'CHECKPOINT_INVALID', /'model\.embed_tokens\.weight' has \d+ rows, .* 16777216/);
    const idefics2 = copy('idefics2');
    edit(
      idefics2,
      'config.json',
      (config: Record<string, Json>) => void Object.assign(config.text_config ?? {}, { head_dim: 1 << 24 }),
    );
    await refuse(idefics2, 'CHECKPOINT_INVALID', /q_proj\.weight' is 64 x 64, .* 67108864 x 64/);
  });

  test('tokenizers that are damaged', async () => {
    const folder = copy('persimmon');
    const original = readFileSync(join(folder, 'tokenizer.json'), 'utf8');
    for (const [values, message] of [
      [{ post_processor: 'x' }, /post_processor/],
      [{ post_processor: { type: 'Sequence', processors: 5 } }, /post_processor/],
      [{ post_processor: { type: 'TemplateProcessing', single: 'x', pair: {} } }, /post_processor/],
      [{ post_processor: { type: 'TemplateProcessing', single: [null, null], pair: [] } }, /post_processor/],
      [{ model: null }, /tokenizer\.json has no model/],
      [{ model: { type: 'BPE', byte_fallback: true, vocab: { a: 0 } } }, /no list of merges/],
    ] as const) {
      writeFileSync(join(folder, 'tokenizer.json'), original);
      set(folder, 'tokenizer.json', values);
      await refuse(folder, 'CHECKPOINT_INVALID', message);
    }
  });

  test('a Unigram, for a model whose texts llama.cpp tokenises', async () => {
    const folder = copy('idefics2');
    const path = join(folder, 'tokenizer.model');
    const bytes = readFileSync(path);
    const scored = Buffer.from(bytes);
    scored.writeFloatLE(Number.NaN, bytes.indexOf(0x15) + 1); // the tag of the first piece's score
    writeFileSync(path, scored);
    await refuse(folder, 'CHECKPOINT_INVALID', /not a SentencePiece model \(score NaN of a piece\)/);
    bytes[bytes.lastIndexOf(Buffer.from([0x18, 0x02])) + 1] = 1; // trainer_spec.model_type
    writeFileSync(path, bytes);
    await refuse(folder, 'CHECKPOINT_INVALID', /Unigram tokenizer/);
    rmSync(path);
    edit(folder, 'tokenizer.json', (json: Record<string, Json>) => {
      const vocab = Object.keys(json.model?.vocab as Json).map((text) => [text, 0]);
      json.model = { type: 'Unigram', unk_id: 0, vocab };
    });
    await refuse(folder, 'CHECKPOINT_INVALID', /Unigram tokenizer/);
  });
});
