/** The parts of a GGUF as llama.cpp's llama-gguf-split makes them, by file name. Only 2 and more tensors, alignment 32. */
export function splitGguf(content: Buffer, name: string, count: number): Record<string, Buffer> {
  let at = 8;
  const take = (length: number) => {
    at += length;
    return content.subarray(at - length, at);
  };
  const u32 = () => take(4).readUInt32LE();
  const u64 = () => Number(take(8).readBigUInt64LE());
  const text = () => take(u64());
  const skip = (type: number): void => {
    if (type === 8) text();
    else if (type === 9) {
      const item = u32();
      for (let left = u64(); left > 0; left--) skip(item);
    } else take(WIDTHS[type] as number);
  };
  const nTensors = u64();
  const nPairs = u64();
  const pairsFrom = at;
  for (let i = 0; i < nPairs; i++) {
    text();
    skip(u32());
  }
  const pairs = content.subarray(pairsFrom, at);
  const infos = Array.from({ length: nTensors }, () => {
    const from = at;
    text();
    take(u32() * 8 + 4);
    const info = content.subarray(from, at);
    return { info, offset: u64() };
  });
  const data = content.subarray(Math.ceil(at / 32) * 32);
  const ends = infos.map((_, i) => infos[i + 1]?.offset ?? data.length);

  const parts: Record<string, Buffer> = {};
  for (let part = 0; part < count; part++) {
    const own = infos.map((_, i) => i).filter((i) => Math.floor((i * count) / nTensors) === part);
    const own0 = infos[own[0] as number]?.offset as number;
    const splitPairs = [
      pair('split.no', 2, part),
      pair('split.count', 2, count),
      pair('split.tensors.count', 5, nTensors),
    ];
    const head = Buffer.concat([
      content.subarray(0, 8),
      long(own.length),
      long(splitPairs.length + (part === 0 ? nPairs : 0)),
      ...(part === 0 ? [pairs] : []),
      ...splitPairs,
      ...own.flatMap((i) => [infos[i]?.info as Buffer, long((infos[i]?.offset as number) - own0)]),
    ]);
    const padding = Buffer.alloc((32 - (head.length % 32)) % 32);
    const number = (n: number) => String(n).padStart(5, '0');
    const body = data.subarray(own0, ends[own.at(-1) as number]);
    parts[`${name}-${number(part + 1)}-of-${number(count)}.gguf`] = Buffer.concat([head, padding, body]);
  }
  return parts;
}

/** Bytes of fixed-size values, by GGUF's type id. */
const WIDTHS: Record<number, number> = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

function long(value: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64LE(BigInt(value));
  return buffer;
}

function pair(key: string, type: 2 | 5, value: number): Buffer {
  const buffer = Buffer.alloc(4 + (type === 2 ? 2 : 4));
  buffer.writeUInt32LE(type);
  if (type === 2) buffer.writeUInt16LE(value, 4);
  else buffer.writeInt32LE(value, 4);
  return Buffer.concat([long(key.length), Buffer.from(key), buffer]);
}
