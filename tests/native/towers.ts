// Tiny mmproj files with random weights for every projector type that the runtime should place rows for. The output matrix of
// every attention is zero, so that no patch hears of another: which pixels a row depends on is then an exact question.
import { writeFileSync } from 'node:fs';
import { Random } from '../../src/util/random.js';
import { gguf, type Tensor } from './gguf-writer.js';

type Shape = number[];
interface Tower {
  /** File's name of the projector. */
  type: string;
  keys?: Record<string, number | Int32Array>;
  /** Shapes as GGUF has them: the fastest axis first. */
  tensors: Record<string, Shape>;
  /** Tensors of the plain tower that this type does without, or has in another shape. */
  instead?: Record<string, Shape | undefined>;
  /** Side of the picture, pixels. Defaults to IMAGE. */
  image?: number;
  /** Blocks with one matrix for queries, keys and values. */
  fused?: true;
}

export const PATCH = 4;
export const IMAGE = 32;
/** Channels of the tower, and what the language model reads. */
const E = 16;
const F = 32;
/** Patches of a picture of IMAGE x IMAGE. */
const N = (IMAGE / PATCH) ** 2;

const linear = (name: string, from: number, to: number): Record<string, Shape> => ({
  [`${name}.weight`]: [from, to],
  [`${name}.bias`]: [to],
});
const norm = (name: string, n: number): Record<string, Shape> => ({ [`${name}.weight`]: [n], [`${name}.bias`]: [n] });
const LIMITS = { 'clip.vision.image_min_pixels': 64, 'clip.vision.image_max_pixels': 65536 };
const TWO_FRAMES = { 'v.patch_embd.weight.1': [PATCH, PATCH, 3, E] };
const NO_BIAS = { 'v.patch_embd.bias': undefined };

/** One of MobileVLM's two blocks of depthwise and pointwise convolutions. */
const mobileBlock = (i: number, n: number): Record<string, Shape> => {
  const block = `mm.model.mb_block.${i}.block`;
  return {
    [`${block}.0.0.weight`]: [3, 3, 1, n],
    ...norm(`${block}.0.1`, n),
    ...linear(`${block}.1.fc1`, n, E),
    ...linear(`${block}.1.fc2`, E, n),
    [`${block}.2.0.weight`]: [n, n],
    ...norm(`${block}.2.1`, n),
  };
};

/** By a name of their own; `width` is that of the language model's rows. */
export const towers = (width: number): Record<string, Tower> => ({
  mlp: { type: 'mlp', tensors: { ...linear('mm.0', E, F), ...linear('mm.2', F, width) } },
  'mlp-tiled': {
    type: 'mlp', // LLaVA-1.6
    keys: { 'clip.vision.image_grid_pinpoints': Int32Array.of(32, 64, 64, 64) },
    tensors: { ...linear('mm.0', E, F), ...linear('mm.2', F, width) },
  },
  mlp_norm: {
    type: 'mlp',
    tensors: {
      ...linear('mm.0', E, width),
      ...norm('mm.1', width),
      ...linear('mm.3', width, width),
      ...norm('mm.4', width),
    },
  },
  janus_pro: { type: 'janus_pro', tensors: { ...linear('mm.0', E, F), ...linear('mm.1', F, width) } },
  phi4: { type: 'phi4', keys: LIMITS, tensors: { ...linear('mm.0', E, F), ...linear('mm.2', F, width) } },
  cogvlm: {
    type: 'cogvlm',
    fused: true,
    instead: { 'v.position_embd.weight': [E, N + 1] },
    tensors: {
      'v.class_embd': [E],
      'mm.model.fc.weight': [E, F],
      ...norm('mm.post_fc_norm', F),
      'mm.up.weight': [F, F],
      'mm.gate.weight': [F, F],
      'mm.down.weight': [F, width],
      'v.boi': [width],
      'v.eoi': [width],
    },
  },
  adapter: {
    type: 'adapter',
    tensors: {
      'adapter.conv.weight': [2, 2, E, F],
      'adapter.conv.bias': [F],
      'adapter.linear.linear.weight': [F, F],
      ...norm('adapter.linear.norm1', F),
      'adapter.linear.dense_h_to_4h.weight': [F, F],
      'adapter.linear.gate.weight': [F, F],
      'adapter.linear.dense_4h_to_h.weight': [F, width],
      'adapter.boi': [width],
      'adapter.eoi': [width],
    },
  },
  ldp: {
    type: 'ldp',
    image: 24 * PATCH, // the number of patches is fixed in mtmd
    tensors: {
      ...linear('mm.model.mlp.1', E, F),
      ...linear('mm.model.mlp.3', F, width),
      ...mobileBlock(1, width),
      ...mobileBlock(2, width),
    },
  },
  ldpv2: {
    type: 'ldpv2',
    image: 24 * PATCH,
    tensors: {
      ...linear('mm.model.mlp.0', E, F),
      ...linear('mm.model.mlp.2', F, width),
      'mm.model.peg.0.weight': [3, 3, 1, width],
      'mm.model.peg.0.bias': [width],
    },
  },
  step3vl: {
    type: 'step3vl',
    tensors: { 'mm.0.weight': [3, 3, E, F], 'mm.1.weight': [3, 3, F, F], 'mm.model.fc.weight': [F, width] },
  },
  qwen2vl_merger: {
    type: 'qwen2vl_merger',
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: { ...TWO_FRAMES, ...linear('mm.0', 4 * E, F), ...linear('mm.2', F, width) },
  },
  'qwen2.5vl_merger': {
    type: 'qwen2.5vl_merger',
    keys: { 'clip.vision.n_wa_pattern': 2, 'clip.vision.window_size': 16 },
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: { ...TWO_FRAMES, ...linear('mm.0', 4 * E, F), ...linear('mm.2', F, width) },
  },
  qwen3vl_merger: {
    type: 'qwen3vl_merger',
    fused: true,
    tensors: { ...TWO_FRAMES, ...linear('mm.0', 4 * E, F), ...linear('mm.2', F, width) },
  },
  exaone4_5: {
    type: 'exaone4_5',
    fused: true,
    keys: { ...LIMITS, 'clip.vision.n_wa_pattern': 2, 'clip.vision.attention.head_count_kv': 2 },
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: { ...TWO_FRAMES, ...linear('mm.0', 4 * E, F), ...linear('mm.2', F, width) },
  },
  mimovl: {
    type: 'mimovl',
    fused: true,
    keys: {
      ...LIMITS,
      'clip.vision.attention.head_count_kv': 2,
      'clip.vision.window_size': 4,
      'clip.vision.wa_pattern_mode': Int32Array.of(0, 1),
    },
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: {
      ...TWO_FRAMES,
      'v.blk.0.attn_sinks': [2],
      'v.blk.1.attn_sinks': [2],
      ...linear('mm.0', 4 * E, F),
      ...linear('mm.2', F, width),
    },
  },
  minimax_m3: {
    type: 'minimax_m3',
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: {
      ...TWO_FRAMES,
      ...linear('mm.1', E, F),
      ...linear('mm.2', F, E),
      ...linear('mm.merger.fc1', 4 * E, F),
      ...linear('mm.merger.fc2', F, width),
    },
  },
  glm4v: {
    type: 'glm4v',
    tensors: {
      ...TWO_FRAMES,
      ...norm('v.norm_embd', E),
      'mm.patch_merger.weight': [2, 2, E, F],
      'mm.patch_merger.bias': [F],
      'mm.model.fc.weight': [F, F],
      ...norm('mm.post_norm', F),
      'mm.up.weight': [F, F],
      'mm.gate.weight': [F, F],
      'mm.down.weight': [F, width],
    },
  },
  youtuvl: {
    type: 'youtuvl',
    keys: { 'clip.vision.window_size': 16, 'clip.vision.wa_layer_indexes': Int32Array.of(1) },
    instead: { 'v.patch_embd.weight': [PATCH * PATCH * 3, E], 'v.position_embd.weight': undefined },
    tensors: { 'mm.input_norm.weight': [E], ...linear('mm.0', 4 * E, F), ...linear('mm.2', F, width) },
  },
  'muse-glimmer': {
    type: 'muse-glimmer',
    tensors: { 'mm.0.weight': [4 * E, F], 'mm.1.weight': [F, F], 'mm.2.weight': [F, width] },
  },
  gemma3: {
    type: 'gemma3',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    tensors: { 'mm.input_projection.weight': [width, E], 'mm.soft_emb_norm.weight': [E] },
  },
  gemma4v: {
    type: 'gemma4v',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { ...NO_BIAS, 'v.position_embd.weight': [E, 32, 2] },
    tensors: { 'mm.input_projection.weight': [E, width] },
  },
  gemma4uv: {
    type: 'gemma4uv',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.patch_embd.weight': [4 * PATCH * PATCH * 3, E], 'v.position_embd.weight': [E, 32, 2] },
    tensors: {
      ...norm('v.patch_norm.1', 4 * PATCH * PATCH * 3),
      ...norm('v.patch_norm.2', E),
      ...norm('v.patch_norm.3', E),
      'mm.input_projection.weight': [E, width],
    },
  },
  idefics3: {
    type: 'idefics3',
    keys: { 'clip.vision.projector.scale_factor': 2, 'clip.vision.preproc_image_size': 64 },
    tensors: { 'mm.model.fc.weight': [4 * E, width] },
  },
  nemotron_v2_vl: {
    type: 'nemotron_v2_vl',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    tensors: {
      'v.class_embd': [E, 3],
      'mm.model.mlp.0.weight': [4 * E],
      'mm.model.mlp.1.weight': [4 * E, F],
      'mm.model.mlp.3.weight': [F, width],
    },
  },
  internvl: {
    type: 'internvl',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.position_embd.weight': [E, N + 1] },
    tensors: {
      'v.class_embd': [E],
      ...norm('mm.model.mlp.0', 4 * E),
      ...linear('mm.model.mlp.1', 4 * E, F),
      ...linear('mm.model.mlp.3', F, width),
    },
  },
  llama4: {
    type: 'llama4',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.patch_embd.weight': [PATCH * PATCH * 3, E], 'v.position_embd.weight': [E, N + 1] },
    tensors: {
      'v.class_embd': [E],
      'mm.model.mlp.1.weight': [4 * E, F],
      'mm.model.mlp.2.weight': [F, F],
      'mm.model.fc.weight': [F, width],
    },
  },
  minicpmv4_6: {
    type: 'minicpmv4_6',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.position_embd.weight': [E, 4900] },
    tensors: { ...norm('mm.input_norm', 4 * E), ...linear('mm.up', 4 * E, F), ...linear('mm.down', F, width) },
  },
  'minicpmv4_6-twice': {
    type: 'minicpmv4_6', // merges between the blocks too
    keys: { 'clip.vision.projector.scale_factor': 4 },
    instead: { 'v.position_embd.weight': [E, 4900] },
    tensors: {
      ...norm('v.vit_merger.ln1', E),
      ...Object.assign({}, ...['q', 'k', 'v', 'out'].map((part) => linear(`v.vit_merger.attn_${part}`, E, E))),
      ...norm('v.vit_merger.ds_ln', 4 * E),
      ...linear('v.vit_merger.ds_ffn_up', 4 * E, F),
      ...linear('v.vit_merger.ds_ffn_down', F, E),
      ...norm('mm.input_norm', 4 * E),
      ...linear('mm.up', 4 * E, F),
      ...linear('mm.down', F, width),
    },
  },
  paddleocr: {
    type: 'paddleocr',
    keys: LIMITS,
    tensors: { ...norm('mm.input_norm', E), ...linear('mm.1', 4 * E, F), ...linear('mm.2', F, width) },
  },
  dots_ocr: {
    type: 'dots_ocr',
    keys: { ...LIMITS, 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.position_embd.weight': undefined },
    tensors: {
      ...norm('mm.input_norm', E),
      'mm.post_norm.weight': [E],
      ...linear('mm.0', 4 * E, F),
      ...linear('mm.2', F, width),
    },
  },
  lfm2: {
    type: 'lfm2',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    tensors: { ...linear('mm.1', 4 * E, F), ...linear('mm.2', F, width) },
  },
  kimivl: {
    type: 'kimivl',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    tensors: { ...norm('mm.input_norm', E), ...linear('mm.1', 4 * E, F), ...linear('mm.2', F, width) },
  },
  kimik25: {
    type: 'kimik25',
    keys: { 'clip.vision.projector.scale_factor': 2 },
    instead: { 'v.position_embd.weight': [E, IMAGE / PATCH, IMAGE / PATCH] },
    tensors: { ...norm('mm.input_norm', E), ...linear('mm.1', 4 * E, F), ...linear('mm.2', F, width) },
  },
  pixtral: {
    type: 'pixtral',
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: { ...linear('mm.1', E, F), ...linear('mm.2', F, width), 'v.token_embd.img_break': [width] },
  },
  'pixtral-merged': {
    type: 'pixtral',
    keys: { 'clip.vision.spatial_merge_size': 2 },
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: {
      'mm.input_norm.weight': [E],
      'mm.patch_merger.weight': [4 * E, E],
      ...linear('mm.1', E, F),
      ...linear('mm.2', F, width),
      'v.token_embd.img_break': [width],
    },
  },
  lightonocr: {
    type: 'lightonocr',
    instead: { ...NO_BIAS, 'v.position_embd.weight': undefined },
    tensors: { ...linear('mm.1', E, F), ...linear('mm.2', F, width) },
  },
  // For a width that is a multiple of 128, the size of its heads.
  resampler: {
    type: 'resampler',
    instead: { 'v.position_embd.weight': [E, 4900] },
    tensors: {
      'resampler.pos_embed_k': [width, 4900],
      'resampler.query': [width, 96],
      'resampler.kv.weight': [E, width],
      'resampler.proj.weight': [width, width],
      ...Object.assign({}, ...['q', 'k', 'v', 'out'].map((part) => linear(`resampler.attn.${part}`, width, width))),
      ...Object.assign({}, ...['q', 'kv', 'post'].map((part) => norm(`resampler.ln_${part}`, width))),
    },
  },
  yasa2: {
    type: 'yasa2',
    instead: { 'v.position_embd.weight': undefined },
    tensors: { ...linear('mm.0', E, F), ...linear('mm.2', F, width) },
  },
});

/** Writes the mmproj of a tower. */
export function writeTower(path: string, name: string, width: number): void {
  const tower = towers(width)[name] as Tower;
  const image = tower.image ?? IMAGE;
  const shapes: Record<string, Shape | undefined> = {
    'v.patch_embd.weight': [PATCH, PATCH, 3, E],
    'v.patch_embd.bias': [E],
    'v.position_embd.weight': [E, (image / PATCH) ** 2],
    ...norm('v.post_ln', E),
  };
  for (const block of ['v.blk.0', 'v.blk.1']) {
    if (tower.fused) Object.assign(shapes, linear(`${block}.attn_qkv`, E, 3 * E));
    else for (const part of 'qkv') Object.assign(shapes, linear(`${block}.attn_${part}`, E, E));
    Object.assign(shapes, linear(`${block}.attn_out`, E, E), norm(`${block}.ln1`, E), norm(`${block}.ln2`, E));
    Object.assign(shapes, linear(`${block}.ffn_up`, E, F), linear(`${block}.ffn_down`, F, E));
  }
  Object.assign(shapes, tower.tensors, tower.instead);
  const random = new Random(1, name);
  const tensors: Tensor[] = Object.entries(shapes).flatMap(([tensor, shape]) => {
    if (!shape) return [];
    const n = shape.reduce((product, side) => product * side, 1);
    if (shape[2] === 1) {
      // A depthwise kernel, which ggml wants in half precision: 1 in the middle, 1/16 around it.
      return { name: tensor, shape, data: Uint16Array.from({ length: n }, (_, i) => (i % 9 === 4 ? 0x3c00 : 0x2c00)) };
    }
    const isNorm = shape.length === 1 && /(_norm|ln\d?|norm\d|\.\d)\.weight$/.test(tensor);
    const spread = tensor.endsWith('attn_out.weight') ? 0 : 0.3;
    const data = Float32Array.from({ length: n }, () => (isNorm ? 1 : 0) + spread * random.gaussian());
    if (shape[0] === 3) {
      // A kernel of 3 x 3, its middle the strongest, as the place of a row is defined by it.
      for (let k = 0; k < n; k++) if (k % 9 !== 4) data[k] = (data[k] as number) / 16;
    }
    return { name: tensor, shape, data };
  });
  writeFileSync(
    path,
    gguf(
      {
        'general.architecture': 'clip',
        'clip.has_vision_encoder': true,
        'clip.projector_type': tower.type,
        'clip.use_gelu': true,
        'clip.vision.image_size': image,
        'clip.vision.patch_size': PATCH,
        'clip.vision.embedding_length': E,
        'clip.vision.feed_forward_length': F,
        'clip.vision.block_count': 2,
        'clip.vision.projection_dim': width,
        'clip.vision.attention.head_count': 2,
        'clip.vision.attention.layer_norm_epsilon': Float32Array.of(1e-5),
        'clip.vision.image_mean': Float32Array.of(0.48, 0.46, 0.41),
        'clip.vision.image_std': Float32Array.of(0.27, 0.26, 0.28),
        ...tower.keys,
      },
      tensors,
    ),
  );
}
