// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

export interface Tensor {
  name: string;
  /** The fastest axis first. */
  shape: number[];
  data: Float32Array | Uint16Array;
}
type Value = string | boolean | number | Int32Array | Float32Array;

/** A GGUF file, version 3, with tensors of F32 and F16. A number is written as uint32, a list of one float as that float. */
export function gguf(metadata: Record<string, Value>, tensors: Tensor[]): Buffer {
  const parts: Buffer[] = [];
  const u32 = (value: number) => parts.push(Buffer.from(Uint32Array.of(value).buffer));
  const u64 = (value: number) => parts.push(Buffer.from(BigUint64Array.of(BigInt(value)).buffer));
  const text = (value: string) => {
    u64(Buffer.byteLength(value));
    parts.push(Buffer.from(value));
  };
  parts.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    text(key);
    if (typeof value === 'string') {
      u32(8);
      text(value);
    } else if (typeof value === 'boolean') {
      u32(7);
      parts.push(Buffer.of(Number(value)));
    } else if (typeof value === 'number') {
      u32(4);
      u32(value);
    } else {
      const type = value instanceof Int32Array ? 5 : 6;
      if (type === 6 && value.length === 1) {
        u32(type);
      } else {
        u32(9);
        u32(type);
        u64(value.length);
      }
      parts.push(Buffer.from(value.buffer));
    }
  }
  let offset = 0;
  for (const { name, shape, data } of tensors) {
    text(name);
    u32(shape.length);
    for (const side of shape) u64(side);
    u32(data instanceof Uint16Array ? 1 : 0);
    u64(offset);
    offset += Math.ceil(data.byteLength / 32) * 32;
  }
  const pad = (n: number) => parts.push(Buffer.alloc((32 - (n % 32)) % 32));
  pad(parts.reduce((n, part) => n + part.length, 0));
  for (const { data } of tensors) {
    parts.push(Buffer.from(data.buffer));
    pad(data.byteLength);
  }
  return Buffer.concat(parts);
}
