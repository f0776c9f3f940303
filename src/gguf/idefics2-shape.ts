import type { XpatchError } from '../util/errors.js';
import { GGUF_TYPE, type GgufArray, type GgufHeader, type GgufTensor, ggufNumber } from './gguf.js';
import { OWN_KEYS } from './own-keys.js';

/** What the preprocessing and the prompt need to know of an Idefics2 mmproj. */
export interface Idefics2Shape {
  patchSize: number;
  /** Bounds of the preprocessed picture's edges, pixels. */
  shortestEdge: number;
  longestEdge: number;
  /** Attention heads of the vision transformer. */
  nHeads: number;
  nRows: number;
  nEmbd: number;
  /** Token on both sides of a picture. */
  fakeToken: number;
}

/** Types that matrices may have: ggml multiplies with all but integers, doubles and what it uses for activations only. */
const NO_MATRIX = new Set([9, 15, 24, 25, 26, 27, 28]);
/** F32, F16, BF16: of tensors from which single rows or patches are read. */
const PLAIN = new Set([0, 1, 30]);

/**
 * Reads the sizes of an Idefics2 mmproj and checks that every tensor of its graph (native/idefics2.cpp) is there and has
 * the shape that they ask for; ggml would end the process otherwise.
 */
export function readIdefics2Shape(header: GgufHeader, invalid: (why: string) => XpatchError): Idefics2Shape {
  const tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  const count = (key: string, max = 1 << 16): number => {
    const value = ggufNumber(header, key);
    const fits = value !== undefined && header.types.get(key) === GGUF_TYPE.uint32 && value >= 1 && value <= max;
    if (!fits) throw invalid(`${key} is ${value ?? 'missing'}`);
    return value;
  };
  const vision = (key: string, max?: number) => count(`clip.vision.${key}`, max);
  const need = (name: string, ...shape: number[]): GgufTensor => {
    const tensor = tensors.get(name);
    if (!tensor) throw invalid(`it has no tensor '${name}'`);
    // A trailing axis of 1 is not written by every program.
    const same = shape.every((n, i) => n === (tensor.shape[i] ?? 1)) && tensor.shape.length <= shape.length;
    if (!same) throw invalid(`'${name}' is ${tensor.shape.join(' x ')}, expected ${shape.join(' x ')}`);
    if (NO_MATRIX.has(tensor.type)) throw invalid(`'${name}' has the type ${tensor.type}`);
    return tensor;
  };
  const needPlain = (name: string, ...shape: number[]) => {
    if (!PLAIN.has(need(name, ...shape).type)) throw invalid(`'${name}' is quantised; it must be F32, F16 or BF16`);
  };
  /** The second axis of a matrix whose width no key names. */
  const widthOf = (name: string): number => {
    const width = tensors.get(name)?.shape[1];
    if (width === undefined) throw invalid(`it has no matrix '${name}'`);
    return width;
  };
  /** A matrix or a norm, and its bias. */
  const affine = (name: string, ...shape: [number, ...number[]]) => {
    need(`${name}.weight`, ...shape);
    need(`${name}.bias`, shape.at(-1) as number);
  };
  for (const key of ['attention.layer_norm_epsilon', 'resampler.layer_norm_rms_epsilon']) {
    if (header.types.get(`clip.vision.${key}`) !== GGUF_TYPE.float32) throw invalid(`clip.vision.${key} is missing`);
  }
  for (const key of ['clip.vision.image_mean', 'clip.vision.image_std']) {
    const list = header.metadata.get(key) as GgufArray | undefined;
    if (typeof list !== 'object' || list.length !== 3) throw invalid(`${key} is missing`);
    if (key.endsWith('std') && list.values.includes(0)) throw invalid(`${key} holds 0`);
  }

  const patchSize = vision('patch_size', 256);
  const imageSize = vision('image_size', 4096);
  const [nVision, nHeads, nFf] = [
    vision('embedding_length'),
    vision('attention.head_count'),
    vision('feed_forward_length'),
  ];
  const nEmbd = vision('projection_dim');
  const side = Math.floor(imageSize / patchSize);
  if (side < 1) throw invalid(`a patch of ${patchSize} pixels is larger than its picture of ${imageSize}`);
  if (nVision % nHeads !== 0) throw invalid(`${nHeads} attention heads do not divide ${nVision} channels`);
  needPlain('v.patch_embd.weight', patchSize, patchSize, 3, nVision);
  need('v.patch_embd.bias', nVision);
  needPlain('v.position_embd.weight', nVision, side * side);
  for (let i = vision('block_count', 512); i-- > 0; ) {
    const block = `v.blk.${i}`;
    for (const part of ['q', 'k', 'v', 'out']) affine(`${block}.attn_${part}`, nVision, nVision);
    affine(`${block}.ffn_up`, nVision, nFf);
    affine(`${block}.ffn_down`, nFf, nVision);
    affine(`${block}.ln1`, nVision);
    affine(`${block}.ln2`, nVision);
  }
  affine('v.post_ln', nVision);

  const width = widthOf('mm.gate.weight');
  need('mm.gate.weight', nVision, width);
  need('mm.up.weight', nVision, width);
  need('mm.down.weight', width, nEmbd);

  const nRows = vision('resampler.n_latents', 4096);
  const [heads, kvHeads] = [vision('resampler.head_count'), vision('resampler.head_count_kv')];
  const headSize = vision('resampler.head_dim', 1024);
  if (heads % kvHeads !== 0)
    throw invalid(`${heads} heads of its resampler cannot share ${kvHeads} of keys and values`);
  needPlain('resampler.latents', nEmbd, nRows);
  need('resampler.norm.weight', nEmbd);
  for (let i = vision('resampler.block_count', 512); i-- > 0; ) {
    const block = `resampler.blk.${i}`;
    for (const place of ['ln_q', 'ln_kv', 'ln_ffn']) need(`${block}.${place}.weight`, nEmbd);
    need(`${block}.attn_q.weight`, nEmbd, heads * headSize);
    for (const part of ['k', 'v']) need(`${block}.attn_${part}.weight`, nEmbd, kvHeads * headSize);
    need(`${block}.attn_out.weight`, heads * headSize, nEmbd);
    const inner = widthOf(`${block}.ffn_gate.weight`);
    for (const part of ['gate', 'up']) need(`${block}.ffn_${part}.weight`, nEmbd, inner);
    need(`${block}.ffn_down.weight`, inner, nEmbd);
  }

  const [shortestEdge, longestEdge] = [count(OWN_KEYS.idefics2ShortestEdge), count(OWN_KEYS.idefics2LongestEdge)];
  if (shortestEdge < patchSize || shortestEdge > longestEdge || longestEdge > imageSize) {
    throw invalid(
      `pictures with edges of ${shortestEdge} to ${longestEdge} pixels do not fit patches of ${patchSize} and positions for ${imageSize}`,
    );
  }
  const token = (key: string): number => {
    const value = ggufNumber(header, key);
    if (value === undefined || header.types.get(key) !== GGUF_TYPE.uint32) throw invalid(`${key} is missing`);
    return value;
  };
  const fakeToken = token(OWN_KEYS.imageBegin);
  if (token(OWN_KEYS.imageEnd) !== fakeToken) throw invalid('its pictures are enclosed by two different tokens');
  return { patchSize, shortestEdge, longestEdge, nHeads, nRows, nEmbd, fakeToken };
}
