// The shipped picture encoder and projector of Gemma-3-270M, beside a language model of its width and name with random weights,
// as the real one is pulled and not shipped.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { encoderSource, findEntry } from '../../src/hub/catalogue.js';
import { readImage } from '../../src/images/image.js';
import { loadModel } from '../../src/model/load-model.js';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';
import { Random } from '../../src/util/random.js';
import { gguf, type Tensor } from '../native/gguf-writer.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';

const SIDE = 126;
const ROWS = 9;
const folder = await temporaryFolder();
const entry = findEntry('gemma-3-270m-xpatch');
const mmproj = (entry && encoderSource(entry).path) as string;

/** A language model of one block with random weights. */
function writeModel(width: number, name: string): string {
  const random = new Random(1, name);
  const tensor = (tensorName: string, ...shape: number[]): Tensor => {
    const n = shape.reduce((product, side) => product * side, 1);
    return { name: tensorName, shape, data: Float32Array.from({ length: n }, () => random.uniform() / width) };
  };
  const path = join(folder, `${name}-${width}.gguf`);
  const square = (part: string) => tensor(`blk.0.${part}.weight`, width, width);
  const metadata = {
    'general.architecture': 'llama',
    'general.name': name,
    'llama.vocab_size': 32,
    'llama.context_length': 128,
    'llama.embedding_length': width,
    'llama.block_count': 1,
    'llama.feed_forward_length': 32,
    'llama.attention.head_count': width / 64,
    'llama.attention.layer_norm_rms_epsilon': Float32Array.of(1e-5),
    'llama.rope.dimension_count': 64,
    'tokenizer.ggml.model': 'none',
  };
  writeFileSync(
    path,
    gguf(metadata, [
      tensor('token_embd.weight', width, 32),
      tensor('output_norm.weight', width),
      ...['attn_norm', 'ffn_norm'].map((part) => tensor(`blk.0.${part}.weight`, width)),
      ...['attn_q', 'attn_k', 'attn_v', 'attn_output'].map(square),
      ...['ffn_gate', 'ffn_up'].map((part) => tensor(`blk.0.${part}.weight`, width, 32)),
      tensor('blk.0.ffn_down.weight', 32, width),
    ]),
  );
  return path;
}

/** A shipped drawing at the encoder's own size, every pixel the nearest, as scripts/real-vlm/reference.py has it. */
async function enlarged(name: string) {
  const { data, width } = await readImage(join(PACKAGE_ROOT, 'data', 'images', 'twemoji', `${name}.png`));
  const at = (i: number) => Math.floor((i * width) / SIDE);
  const pixels = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % SIDE, Math.floor(i / 3 / SIDE)];
    return data[3 * (at(y) * width + at(x)) + (i % 3)] as number;
  });
  return { data: pixels, width: SIDE, height: SIDE };
}

let model: string;
beforeAll(() => {
  expect(existsSync(mmproj)).toBe(true);
  model = writeModel(640, 'Gemma 3 270m');
});

test('its rows are those of PyTorch, with no text around them', async () => {
  const loaded = await loadModel(model, { mmproj, device: 'cpu', threads: 1 });
  const expected = JSON.parse(readFileSync(new URL('../fixtures/real-vlm.json', import.meta.url), 'utf8')) as Record<
    string,
    number[][]
  >;
  for (const [name, rows] of Object.entries(expected)) {
    const { segments } = await loaded.prompt([{ tokens: [5] }, { image: await enlarged(name) }, { tokens: [6] }]);
    expect(segments.map(({ kind }) => kind)).toEqual(['tokens', 'image', 'tokens']);
    const [, picture] = segments;
    if (picture?.kind !== 'image') throw new Error('no picture');
    expect(picture.nRows).toBe(ROWS);
    const wanted = rows.flat();
    const error = wanted.reduce((sum, value, i) => sum + (value - (picture.embeddings[i] as number)) ** 2, 0);
    const size = wanted.reduce((sum, value) => sum + value ** 2, 0);
    // The quantised matrices round what they read to eight bits.
    expect(Math.sqrt(error / size)).toBeLessThan(0.03);
  }
  await loaded.dispose();
});

test('beside another language model it is refused, by name and by width', async () => {
  const other = writeModel(640, 'another');
  await expectError(
    () => loadModel(other, { mmproj }),
    'MMPROJ_INVALID',
    /made for 'Gemma 3 270m', but the model is 'another'/,
  );
  const wide = writeModel(768, 'Gemma 3 270m');
  await expectError(() => loadModel(wide, { mmproj }), 'MMPROJ_INVALID', /640|768|width/);
});
