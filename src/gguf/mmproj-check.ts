import { XpatchError } from '../util/errors.js';
import { checkProjectorFacts, checkWeights } from './facts.js';
import { readFuyuShape } from './fuyu-shape.js';
import { GGUF_TYPE, type GgufArray, type GgufHeader, type GgufTensor, ggufNumber, readGgufHeader } from './gguf.js';
import { AGAIN, checkFloats } from './gguf-check.js';
import { readIdefics2Shape } from './idefics2-shape.js';

type Invalid = (why: string) => XpatchError;

/** The way out for a good file in a wrong place. */
const OTHER = 'Name the mmproj of this model';

/** `general.name` of the language model that a projector was trained for. */
const MADE_FOR = 'xpatch.language_model';

/**
 * Checks that a file is an mmproj with an image encoder whose parts fit together. llama.cpp's mtmd checks much less of such a
 * file than of a model: a missing tensor is a null pointer, a wrong size an assertion, and both end the process.
 * Whether the rows it gives have the width that the model reads is left to mtmd, which refuses that.
 *
 * A file may name the one language model that its rows were made for, as those of scripts/real-vlm do: beside another one of the
 * same width it would be read, and mean nothing.
 *
 * @param model header of the language model that reads its rows. Defaults to none, and to no comparison
 * @returns The projector's type.
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID, MMPROJ_INVALID.
 */
export function checkProjectorFile(path: string, model?: GgufHeader): string {
  const header = readGgufHeader(path);
  const invalid = (why: string, wayOut = AGAIN) =>
    new XpatchError('MMPROJ_INVALID', `'${path}' is not a usable mmproj: ${why}. ${wayOut}.`);
  const architecture = header.metadata.get('general.architecture');
  if (architecture !== 'clip') throw invalid(`its architecture is '${architecture}', but an mmproj has 'clip'`, OTHER);
  if (header.metadata.get('clip.has_vision_encoder') !== true) throw invalid('it has no image encoder', OTHER);
  const madeFor = header.metadata.get(MADE_FOR);
  const name = model?.metadata.get('general.name');
  if (model && madeFor !== undefined && madeFor !== name) {
    throw invalid(`its rows are made for '${madeFor}', but the model is '${name}'`, OTHER);
  }
  checkTypes(header, invalid);
  for (const key of ['image_size', 'patch_size', 'embedding_length', 'block_count', 'attention.head_count']) {
    const value = ggufNumber(header, `clip.vision.${key}`);
    if (value !== undefined && !(value >= 1 && value <= 1 << 16)) throw invalid(`clip.vision.${key} is ${value}`);
  }
  for (const key of ['projector.scale_factor', 'spatial_merge_size']) {
    const value = ggufNumber(header, `clip.vision.${key}`);
    if (value !== undefined && !(value >= 1 && value <= 64)) throw invalid(`clip.vision.${key} is ${value}`);
  }
  for (const key of ['clip.vision.image_mean', 'clip.vision.image_std']) {
    const array = header.metadata.get(key) as GgufArray | undefined;
    if (array && array.length !== 3) throw invalid(`${key} has ${array.length} values, a picture has 3 colours`);
  }
  checkFloats(header, 'clip.', invalid);
  checkWeights(header.tensors, invalid);

  const type = String(
    header.metadata.get('clip.vision.projector_type') ?? header.metadata.get('clip.projector_type') ?? 'unknown',
  );
  checkProjectorFacts(header, type, invalid);
  if (type === 'idefics2') readIdefics2Shape(header, invalid);
  if (type === 'fuyu') readFuyuShape(header, invalid);
  if (PLAIN.includes(type)) checkTower(header, type, invalid);
  return type;
}

/** Keys that mtmd reads as one certain type: another one is an assertion. */
const TYPES: [type: number, keys: RegExp][] = [
  [
    GGUF_TYPE.string,
    /^general\.(name|description)$|^clip\.((vision|audio)\.)?projector_type$|^clip\.vision\.mm_patch_merge_type$/,
  ],
  [GGUF_TYPE.bool, /^clip\.(has_(vision|audio|gen_audio)_encoder|use_gelu|use_silu)$/],
  [GGUF_TYPE.float32, /^clip\.\w+\.attention\.layer_norm_epsilon$|^clip\.vision\.image_(mean|std)$/],
  [
    GGUF_TYPE.int32,
    /^clip\.minicpmv_version$|^clip\.vision\.(feature_layer|image_grid_pinpoints|wa_layer_indexes|wa_pattern_mode)$/,
  ],
  [
    GGUF_TYPE.uint32,
    /^clip\.\w+\.((embedding|feed_forward)_length|block_count|projection_dim|attention\.head_(count|count_kv|dim)|num_mel_bins)$|^clip\.vision\.(image_size|image_(min|max)_pixels|preproc_(min_tiles|max_tiles|image_size)|patch_size|projector\.(scale_factor|query_side|window_side)|spatial_merge_size|n_wa_pattern|window_size|expert_used_count|sam\.\w+)$|^clip\.minicpmv_query_num$/,
  ],
];

function checkTypes(header: GgufHeader, invalid: Invalid): void {
  const lists = /image_mean|image_std|feature_layer|image_grid_pinpoints|wa_layer_indexes|wa_pattern_mode/;
  for (const [key, actual] of header.types) {
    const expected = TYPES.find(([, keys]) => keys.test(key));
    if (!expected) continue;
    const isList = typeof header.metadata.get(key) === 'object';
    if (actual !== expected[0] || isList !== lists.test(key)) throw invalid(`${key} has the wrong type`);
  }
}

/** Projectors after a plain vision transformer, all of whose blocks are alike. */
const PLAIN = [
  'mlp',
  'ldp',
  'ldpv2',
  'gemma3',
  'idefics3',
  'internvl',
  'nemotron_v2_vl',
  'pixtral',
  'lfm2',
  'qwen2vl_merger',
  'qwen2.5vl_merger',
  'qwen3vl_merger',
];

/** Those of them that do not stretch the position embeddings to the size of the picture. */
const FIXED_SIZE = ['mlp', 'ldp', 'ldpv2', 'gemma3', 'idefics3', 'internvl', 'nemotron_v2_vl'];

function checkTower(header: GgufHeader, projector: string, invalid: Invalid): void {
  const tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  const number = (key: string): number => {
    const value = ggufNumber(header, `clip.vision.${key}`);
    if (value === undefined) throw invalid(`clip.vision.${key} is missing`);
    return value;
  };
  const nEmbd = number('embedding_length');
  const nBlocks = number('block_count');
  const nHeads = number('attention.head_count');
  const patchSize = number('patch_size');
  const imageSize = number('image_size');
  const need = (name: string): GgufTensor => {
    const tensor = tensors.get(name);
    if (!tensor) throw invalid(`it has no tensor '${name}'`);
    return tensor;
  };
  const expect = (tensor: GgufTensor | undefined, ...shape: number[]): void => {
    // InternVL's converter leaves axes of one at the end.
    const same =
      !tensor || (tensor.shape.length >= shape.length && tensor.shape.every((n, i) => n === (shape[i] ?? 1)));
    if (!same) throw invalid(`'${tensor.name}' is ${tensor.shape.join(' x ')}, expected ${shape.join(' x ')}`);
  };

  if (nEmbd % nHeads !== 0) throw invalid(`${nHeads} attention heads do not divide ${nEmbd} channels`);
  const patches = need('v.patch_embd.weight');
  if (patches.shape.length === 4) expect(patches, patchSize, patchSize, 3, nEmbd);
  // Qwen's second matrix, for the second of two frames.
  if (projector.startsWith('qwen')) expect(need('v.patch_embd.weight.1'), ...patches.shape);
  expect(tensors.get('v.patch_embd.bias'), nEmbd);
  const side = Math.floor(imageSize / patchSize);
  const factor = ggufNumber(header, 'clip.vision.projector.scale_factor') ?? 1;
  // Nemotron's graph puts class token and registers, one tensor, before patches that have their positions already.
  const apart = projector === 'nemotron_v2_vl';
  const first = apart ? need('v.class_embd') : tensors.get('v.class_embd');
  expect(first, nEmbd, ...(apart ? (first?.shape.slice(1) ?? []) : []));
  if (FIXED_SIZE.includes(projector)) {
    expect(need('v.position_embd.weight'), nEmbd, side * side + (first && !apart ? 1 : 0));
    if (side % factor !== 0) throw invalid(`${side} x ${side} patches cannot be merged ${factor} x ${factor}`);
  }

  const read = (header.metadata.get('clip.vision.feature_layer') as GgufArray | undefined)?.values ?? [];
  for (const layer of read as number[]) {
    // Layer 0 is the input of the first block, layer n the output of the n-th.
    if (layer < 0 || layer > nBlocks) throw invalid(`its projector reads layer ${layer} of ${nBlocks}`);
  }
  for (let i = 0; i < nBlocks; i++) {
    const at = (part: string) => tensors.get(`v.blk.${i}.${part}.weight`);
    if (at('attn_qkv')) {
      expect(at('attn_qkv'), nEmbd, 3 * nEmbd);
    } else {
      const kv = (nEmbd / nHeads) * (ggufNumber(header, 'clip.vision.attention.head_count_kv') ?? nHeads);
      expect(need(`v.blk.${i}.attn_q.weight`), nEmbd, nEmbd);
      for (const part of ['k', 'v']) expect(need(`v.blk.${i}.attn_${part}.weight`), nEmbd, kv);
    }
    expect(need(`v.blk.${i}.attn_out.weight`), nEmbd, nEmbd);
    const up = need(`v.blk.${i}.ffn_up.weight`);
    // Older converters swapped the names of up and down.
    expect(need(`v.blk.${i}.ffn_down.weight`), ...[...up.shape].reverse());
    if (!up.shape.includes(nEmbd)) throw invalid(`'${up.name}' is ${up.shape.join(' x ')}, neither of them ${nEmbd}`);
    if (at('ffn_gate')) expect(at('ffn_gate'), ...up.shape);
  }
  checkAlike(header.tensors, invalid);

  if (projector === 'gemma3') expect(need('mm.soft_emb_norm.weight'), nEmbd);
  if (projector === 'mlp') checkMlp(header, need, nEmbd, invalid);
  if (apart) {
    const [norm, up, down] = [0, 1, 3].map((i) => need(`mm.model.mlp.${i}.weight`)) as [
      GgufTensor,
      GgufTensor,
      GgufTensor,
    ];
    expect(norm, nEmbd * factor ** 2);
    expect(up, nEmbd * factor ** 2, up.shape[1] ?? 1);
    expect(down, up.shape[1] ?? 1, down.shape[1] ?? 1);
  }
}

/** Every block has the tensors of block 0: what is missing in one was lost. */
function checkAlike(tensors: readonly GgufTensor[], invalid: Invalid): void {
  const blocks = new Map<string, string[]>();
  for (const { name } of tensors) {
    const [, block, part] = /^v\.blk\.(\d+)\.(.+)$/.exec(name) ?? [];
    if (block !== undefined && part !== undefined) blocks.set(block, [...(blocks.get(block) ?? []), part]);
  }
  const first = blocks.get('0')?.sort().join();
  for (const [block, parts] of blocks) {
    if (parts.sort().join() !== first)
      throw invalid(`block ${block} of its encoder has different tensors from block 0`);
  }
}

/** LLaVA's projector: two matrices, or Yi's four with norms between. */
function checkMlp(header: GgufHeader, need: (name: string) => GgufTensor, nEmbd: number, invalid: Invalid): void {
  const names = new Set(header.tensors.map((tensor) => tensor.name));
  const layers = (header.metadata.get('clip.vision.feature_layer') as GgufArray | undefined)?.length ?? 1;
  const first = need('mm.0.weight');
  const last = need(names.has('mm.3.weight') ? 'mm.3.weight' : 'mm.2.weight');
  if (first.shape[0] !== nEmbd * layers)
    throw invalid(`'mm.0.weight' reads ${first.shape[0]} values, the encoder gives ${nEmbd * layers}`);
  if (last.shape[0] !== first.shape[1])
    throw invalid(`'${last.name}' reads ${last.shape[0]} values, 'mm.0.weight' gives ${first.shape[1]}`);
  for (const matrix of [first, last]) need(matrix.name.replace('weight', 'bias'));
}
