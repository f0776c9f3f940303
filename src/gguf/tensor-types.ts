import { tensorBytes } from './gguf.js';

/** What the matrices of a converted model are stored as. `q4_k` is llama.cpp's mixture Q4_K_M. */
export const CONVERSION_TYPES = ['f32', 'f16', 'q8_0', 'q4_k'] as const;
/** What the matrices of a converted model can be stored as. */
export type ConversionType = (typeof CONVERSION_TYPES)[number];

/** ggml's numbers of the types. */
export const GGML = { F32: 0, F16: 1, Q4_0: 2, Q5_0: 6, Q8_0: 8, Q4_K: 12, Q6_K: 14, BF16: 30 } as const;
export type GgmlName = keyof typeof GGML;

/** llama.cpp's numbers of the mixtures (general.file_type, enum llama_ftype). */
export const FILE_TYPES: Record<ConversionType, number> = { f32: 0, f16: 1, q8_0: 7, q4_k: 15 };

/** The name of one of these numbers; of another one its digits. */
export function typeName(type: number): string {
  return Object.entries(GGML).find(([, id]) => id === type)?.[0] ?? String(type);
}

/** What a type becomes where rows are not a multiple of its block, as in llama.cpp's quantiser. */
const FALLBACK: Partial<Record<GgmlName, GgmlName>> = { Q4_K: 'Q5_0', Q6_K: 'Q8_0', Q5_0: 'F16', Q8_0: 'F16' };

export interface ChosenType {
  type: GgmlName;
  /** Set where the rows do not allow that type. */
  instead?: GgmlName;
}

/**
 * The type of a tensor of a text model, as convert_hf_to_gguf.py (f32, f16, q8_0) and llama-quantize (q4_k: Q4_K_M) choose it:
 * vectors and norms stay F32; of the mixture, the output matrix is Q6_K, and so are the values and the down projections
 * of the first and the last eighth of the blocks and of every third one between.
 *
 * @param shape the fastest axis first
 */
export function textType(type: ConversionType, name: string, shape: readonly number[], nLayers: number): ChosenType {
  if (shape.length < 2 || !name.endsWith('.weight') || name.endsWith('_norm.weight')) return { type: 'F32' };
  if (type !== 'q4_k') return fitting(PLAIN[type], shape);
  if (name === 'output.weight') return fitting('Q6_K', shape);
  const layer = Number(/^blk\.(\d+)\.(?:attn_v|ffn_down)\.weight$/.exec(name)?.[1] ?? Number.NaN);
  const eighth = Math.floor(nLayers / 8);
  const better = layer < eighth || layer >= Math.floor((7 * nLayers) / 8) || (layer - eighth) % 3 === 2;
  return fitting(better ? 'Q6_K' : 'Q4_K', shape);
}

/**
 * The type of a tensor of a picture encoder, as convert_hf_to_gguf.py chooses it. Four bits are too few for encoders, and
 * their rows seldom fit blocks of 256: for q4_k it is Q8_0.
 */
export function imageType(type: ConversionType, name: string, shape: readonly number[]): ChosenType {
  if (shape.length < 2 || !name.endsWith('.weight') || name.endsWith('position_embd.weight')) return { type: 'F32' };
  if (name.endsWith('patch_embd.weight')) return { type: type === 'f16' ? 'F16' : 'F32' };
  return fitting(PLAIN[imageConversion(type)], shape);
}

/** What an encoder is converted to beside a text model of this type. */
export function imageConversion(type: ConversionType): Exclude<ConversionType, 'q4_k'> {
  return type === 'q4_k' ? 'q8_0' : type;
}

const PLAIN = { f32: 'F32', f16: 'F16', q8_0: 'Q8_0' } as const;

function fitting(wanted: GgmlName, shape: readonly number[]): ChosenType {
  let type = wanted;
  while (tensorBytes(GGML[type], shape) === undefined) type = FALLBACK[type] as GgmlName;
  return type === wanted ? { type } : { type, instead: wanted };
}
