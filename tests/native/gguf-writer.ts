import { type GgufField, layOutGguf } from '../../src/gguf/gguf-writer.js';
import { GGML } from '../../src/gguf/tensor-types.js';

export interface Tensor {
  name: string;
  /** The fastest axis first. */
  shape: number[];
  data: Float32Array | Uint16Array;
}
type Value = string | boolean | number | Int32Array | Float32Array;

/** A small GGUF file with tensors of F32 and F16. A number is written as uint32, a list of one float as that float. */
export function gguf(metadata: Record<string, Value>, tensors: Tensor[]): Buffer {
  const fields = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [key, field(value)]));
  const layouts = tensors.map(({ name, shape, data }) => ({
    name,
    shape,
    type: data instanceof Uint16Array ? GGML.F16 : GGML.F32,
  }));
  const { header, places, size } = layOutGguf(fields, layouts);
  const file = Buffer.alloc(size);
  file.set(header);
  for (const [i, { data }] of tensors.entries()) file.set(Buffer.from(data.buffer), places[i]?.offset);
  return file;
}

function field(value: Value): GgufField {
  if (typeof value === 'string') return { type: 'string', value };
  if (typeof value === 'boolean') return { type: 'bool', value };
  if (typeof value === 'number') return { type: 'u32', value };
  if (value instanceof Int32Array) return { type: 'i32', list: value };
  return value.length === 1 ? { type: 'f32', value: value[0] as number } : { type: 'f32', list: value };
}
