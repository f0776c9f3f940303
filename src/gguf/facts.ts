import type { XpatchError } from '../util/errors.js';
import { type GgufArray, type GgufHeader, type GgufTensor, ggufNumber } from './gguf.js';

/** Reads a header: numbers and lists by their keys without the prefix, tensors by their names. */
interface Reading {
  n: (key: string) => number | undefined;
  list: (key: string) => readonly number[];
  t: (name: string) => GgufTensor | undefined;
}

/**
 * What llama.cpp or mtmd takes for granted; if it does not hold, they end the process. The trial (src/model/trial.ts) finds what is
 * missing here; these say it clearly.
 */
interface Fact {
  /** Architectures or projectors, with spaces between. Defaults to all. */
  of?: string;
  /** What is wrong, in words that end "is not a usable model: ...", or nothing. */
  wrong: (reading: Reading) => string | undefined | false;
}

// To be made again for another llama.cpp: grep -l 'GGML_ASSERT(n_embd_head == hparams.n_embd_head_k())' src/models/*.cpp
const SAME_LENGTHS =
  'afmoe apertus arcee arctic baichuan bailingmoe2 bitnet bloom chameleon chatglm codeshell cogvlm cohere2 cohere2moe ' +
  'command-r dbrx deci deepseek dots1 ernie4_5 ernie4_5-moe exaone exaone4 exaone-moe falcon glm4 glm4moe gpt2 gptneox ' +
  'granite granite_swa granitehybrid graniteswitch grok grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais jais2 laguna ' +
  'llama llama4 maincoder mellum minimax-01 minimax-m2 minimax-m3 mistral3 mpt muse-glimmer nanbeige nemotron nemotron_h ' +
  'nemotron_h_moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 plamo qwen qwen2 qwen2moe qwen2vl ' +
  'qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact seed_oss smallthinker smollm3 stablelm ' +
  'starcoder starcoder2 xverse';
// The same with n_rot.
const WHOLE_HEADS =
  'apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1 ernie4_5 ernie4_5-moe exaone ' +
  'exaone4 exaone-moe falcon granite granite_swa graniteswitch grok grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais2 llama ' +
  'llama4 maincoder mellum mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 ' +
  'qwen3moe qwen3vl qwen3vlmoe seed_oss smallthinker smollm3 starcoder2 talkie xverse';

const headOf = ({ n }: Reading, part: 'key' | 'value') => {
  const [width, heads] = [n('embedding_length'), n('attention.head_count')];
  return n(`attention.${part}_length`) ?? (width && heads && Math.floor(width / heads));
};

const MODEL_FACTS: readonly Fact[] = [
  {
    wrong: ({ n }) => {
      const [ahead, blocks] = [n('nextn_predict_layers') ?? 0, n('block_count') ?? 0];
      return ahead > blocks && `nextn_predict_layers is ${ahead}, but it has ${blocks} blocks`;
    },
  },
  {
    of: SAME_LENGTHS,
    wrong: (reading) => {
      const [keys, values] = [headOf(reading, 'key'), headOf(reading, 'value')];
      return keys !== values && `its heads have keys of ${keys} numbers and values of ${values}`;
    },
  },
  {
    of: WHOLE_HEADS,
    wrong: (reading) => {
      const [turned, head] = [reading.n('rope.dimension_count'), headOf(reading, 'key')];
      if (turned === undefined || head === undefined || reading.n('rope.dimension_count_swa') !== undefined) return;
      return turned !== head && `rope.dimension_count is ${turned}, but a head has ${head} numbers`;
    },
  },
  {
    wrong: (reading) => {
      const turned = reading.n('rope.dimension_count_swa');
      const head = reading.n('attention.key_length_swa') ?? headOf(reading, 'key') ?? Infinity;
      const fits = turned === undefined || (turned > 0 && turned % 2 === 0 && turned <= head);
      return !fits && `rope.dimension_count_swa is ${turned}, but a head has ${head} numbers`;
    },
  },
  {
    of: 'bailingmoe2 glm4moe grovemoe lfm2moe smallthinker',
    wrong: ({ n }) => !n('expert_count') && 'it has no experts (expert_count)',
  },
  {
    of: 'paddleocr qwen2vl qwen3vl qwen3vlmoe qwen35 qwen35moe qwen4exp',
    wrong: ({ list }) =>
      !list('rope.dimension_sections').some((size) => size > 0) &&
      'it does not say which numbers of a head rotate with the column and the row of a picture (rope.dimension_sections)',
  },
  {
    of: 'phi3',
    wrong: ({ n, t }) => {
      const block = Array.from({ length: n('block_count') ?? 0 }, (_, i) => `blk.${i}.attn_`);
      const without = block.find((at) => !t(`${at}qkv.weight`) && !['q', 'k', 'v'].every((x) => t(`${at}${x}.weight`)));
      return without && `it has no tensor '${without}qkv.weight'`;
    },
  },
];

/** The first matrix of a projector reads all patches that are merged into one row. */
const MERGERS: readonly [of: string, key: string, byDefault: number, reader: string][] = [
  ['idefics3', 'projector.scale_factor', 1, 'mm.model.fc.weight'],
  ['internvl llama4 nemotron_v2_vl', 'projector.scale_factor', 1, 'mm.model.mlp.1.weight'],
  ['lfm2', 'projector.scale_factor', 1, 'mm.1.weight'],
  ['kimivl kimik25 paddleocr', 'projector.scale_factor', 2, 'mm.1.weight'],
  ['pixtral lightonocr', 'spatial_merge_size', 1, 'mm.patch_merger.weight'],
  ['qwen2vl_merger qwen2.5vl_merger qwen3vl_merger exaone4_5', 'spatial_merge_size', 2, 'mm.0.weight'],
];

const OPTIONAL = ['mm.patch_merger.weight'];

const PROJECTOR_FACTS: readonly Fact[] = [
  ...MERGERS.map(
    ([of, key, byDefault, reader]): Fact => ({
      of,
      wrong: ({ n, t }) => {
        const [width, merge] = [n('embedding_length'), n(key) ?? byDefault];
        const reads = t(reader)?.shape[0];
        if (reads === undefined) return !OPTIONAL.includes(reader) && `it has no tensor '${reader}'`;
        if (width === undefined || reads === width * merge ** 2) return;
        const said = n(key) === undefined ? `${key} is missing` : `${key} is ${merge}`;
        return `${said}, but '${reader}' reads ${reads} numbers, not ${merge} x ${merge} patches of ${width}`;
      },
    }),
  ),
  {
    of: 'gemma3nv',
    wrong: ({ t }) => !t('v.conv_stem.conv.weight') && "it has no tensor 'v.conv_stem.conv.weight'",
  },
  {
    of: 'pixtral lightonocr',
    wrong: ({ n, t }) => {
      const merge = n('spatial_merge_size') ?? 1;
      if (!t('mm.patch_merger.weight'))
        return merge !== 1 && `spatial_merge_size is ${merge}, but it has no patch merger`;
      return !t('mm.input_norm.weight') && "it merges patches, but has no tensor 'mm.input_norm.weight'";
    },
  },
  {
    of: 'qwen2vl_merger qwen2.5vl_merger exaone4_5',
    wrong: ({ n, t }) => {
      const [said, gives] = [n('projection_dim'), t('mm.2.weight')?.shape[1]];
      const merge = n('spatial_merge_size') ?? 2;
      if (merge !== 2) return `spatial_merge_size is ${merge}, its projector merges 2 x 2 patches`;
      return said !== gives && `projection_dim is ${said}, but 'mm.2.weight' gives ${gives} numbers`;
    },
  },
  {
    wrong: ({ n, t }) => {
      const [size, heads] = [n('attention.head_dim') ?? 0, n('attention.head_count')];
      const rows = t('v.blk.0.attn_q.weight')?.shape[1] ?? (t('v.blk.0.attn_qkv.weight')?.shape[1] ?? 0) / 3;
      if (size === 0 || !heads || !rows || n('attention.head_count_kv') !== undefined) return;
      return (
        size * heads !== rows && `${heads} attention heads of ${size} (attention.head_dim) are not ${rows} numbers`
      );
    },
  },
  {
    of: 'internvl deepseekocr deepseekocr2',
    wrong: ({ n }) => {
      const [least, most] = [n('preproc_min_tiles') ?? 1, n('preproc_max_tiles') ?? MAX_TILES];
      return (least > most || most > MAX_TILES) && `it cuts pictures into ${least} to ${most} tiles`;
    },
  },
  {
    wrong: ({ n, t }) => {
      const width = n('embedding_length');
      const places = ['v.pre_ln', 'v.post_ln'];
      for (let i = 0; i < (n('block_count') ?? 0); i++) places.push(...NORMS.map((norm) => `v.blk.${i}.${norm}`));
      const tensors = places.flatMap((place) => [t(`${place}.weight`), t(`${place}.bias`)]);
      const other = tensors.find((tensor) => tensor && width && size(tensor) !== width);
      return other && `'${other.name}' is ${other.shape.join(' x ')}, expected ${width}`;
    },
  },
];
const NORMS = ['ln1', 'ln2', 'ls1', 'ls2'];
/** mtmd tries all ways to lay them out. */
const MAX_TILES = 256;

const size = ({ shape }: GgufTensor) => shape.reduce((a, b) => a * b, 1);

type Invalid = (why: string) => XpatchError;

export const checkModelFacts = (header: GgufHeader, architecture: string, invalid: Invalid) =>
  check(MODEL_FACTS, header, architecture, `${architecture}.`, invalid);

export const checkProjectorFacts = (header: GgufHeader, projector: string, invalid: Invalid) =>
  check(PROJECTOR_FACTS, header, projector, 'clip.vision.', invalid);

function check(facts: readonly Fact[], header: GgufHeader, name: string, prefix: string, invalid: Invalid): void {
  const tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]));
  const reading: Reading = {
    n: (key) => ggufNumber(header, `${prefix}${key}`),
    list: (key) => (header.metadata.get(`${prefix}${key}`) as GgufArray | undefined)?.values?.map(Number) ?? [],
    t: (tensor) => tensors.get(tensor),
  };
  for (const { of, wrong } of facts) {
    const why = (of === undefined || of.split(' ').includes(name)) && wrong(reading);
    if (why) throw invalid(why);
  }
}

/** Types that ggml multiplies and adds with nothing: whole numbers, and float64. */
const NO_WEIGHTS: Readonly<Record<number, string>> = { 24: 'I8', 25: 'I16', 26: 'I32', 27: 'I64', 28: 'F64' };
const F32 = 0;

/**
 * Types and shapes of weights. ggml's CPU backend adds to and multiplies with float32 states in float32 only what is a vector: biases,
 * norms and scales, also as a matrix of one column. A bias has a value for each output.
 */
export function checkWeights(tensors: readonly GgufTensor[], invalid: Invalid): void {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const tensor of tensors) {
    const { name, shape, type } = tensor;
    if (!/\.(weight|bias|scale|input_scale)$/.test(name) || name.startsWith('cls.')) continue;
    const isVector = shape.slice(1).every((n) => n === 1) || /scale$/.test(name);
    if (isVector && type !== F32) throw invalid(`the vector '${name}' is not float32`);
    if (NO_WEIGHTS[type] && !/tid2eid/.test(name))
      throw invalid(`'${name}' has type ${NO_WEIGHTS[type]}, which is not a type of weights`);
    const weight = name.endsWith('.bias') && byName.get(name.replace(/bias$/, 'weight'));
    if (weight && !outputs(weight).includes(size(tensor)))
      throw invalid(`'${name}' is ${shape.join(' x ')}, but '${weight.name}' is ${weight.shape.join(' x ')}`);
  }
}

/** How many values the bias beside a weight may have. */
function outputs({ name, shape }: GgufTensor): number[] {
  const axes = shape.slice(0, shape.findLastIndex((n) => n > 1) + 1);
  if (axes.length < 2) return [axes[0] ?? 1, 1]; // a norm, or a matrix with one output
  return [axes.slice(/_exps\./.test(name) ? -2 : -1).reduce((a, b) => a * b)];
}
