import type { XpatchError } from '../util/errors.js';
import { GGUF_TYPE, type GgufArray, type GgufHeader, type GgufTensor, ggufNumber } from './gguf.js';
import { OWN_KEYS } from './own-keys.js';

/** What the runtime needs to know of a Fuyu mmproj. */
export interface FuyuShape {
  patchSize: number;
  nEmbd: number;
  /** Bounds of the preprocessed picture, pixels. */
  maxWidth: number;
  maxHeight: number;
  mean: readonly number[];
  std: readonly number[];
  weight: GgufTensor;
  bias: GgufTensor;
  newline: GgufTensor;
}

/** Types in which its tensors may be stored, and their bytes. */
export const STORED: ReadonlyMap<number, number> = new Map([
  [0, 4], // F32
  [1, 2], // F16
  [30, 2], // BF16
]);

/** Reads the settings of a Fuyu mmproj, and checks that its tensors have the shapes that they ask for. */
export function readFuyuShape(header: GgufHeader, invalid: (why: string) => XpatchError): FuyuShape {
  const count = (key: string, max: number): number => {
    const value = ggufNumber(header, key);
    if (value === undefined || !Number.isInteger(value) || value < 1 || value > max)
      throw invalid(`${key} is ${value}`);
    return value;
  };
  const colours = (key: string): number[] => {
    const array = header.metadata.get(key) as GgufArray | undefined;
    const fits = typeof array === 'object' && array.length === 3 && header.types.get(key) === GGUF_TYPE.float32;
    if (!fits) throw invalid(`${key} is missing or not three float32`);
    return array.values as number[];
  };
  const patchSize = count('clip.vision.patch_size', 256);
  const [maxWidth, maxHeight] = [count(OWN_KEYS.fuyuMaxWidth, 1 << 14), count(OWN_KEYS.fuyuMaxHeight, 1 << 14)];
  const [mean, std] = [colours('clip.vision.image_mean'), colours('clip.vision.image_std')];
  if (std.some((value) => value === 0)) throw invalid('clip.vision.image_std holds 0');
  const nEmbd = header.tensors.find(({ name }) => name === 'mm.newline')?.shape[0] ?? 0;
  const tensor = (name: string, ...shape: number[]): GgufTensor => {
    const found = header.tensors.find((other) => other.name === name);
    if (!found) throw invalid(`it has no tensor '${name}'`);
    if (found.shape.length !== shape.length || found.shape.some((n, i) => n !== shape[i])) {
      throw invalid(`'${name}' is ${found.shape.join(' x ')}, expected ${shape.join(' x ')}`);
    }
    if (!STORED.has(found.type)) throw invalid(`'${name}' is neither F32 nor F16 nor BF16`);
    return found;
  };
  const [newline, bias] = [tensor('mm.newline', nEmbd), tensor('mm.patch_embd.bias', nEmbd)];
  const weight = tensor('mm.patch_embd.weight', patchSize * patchSize * 3, nEmbd);
  return { patchSize, nEmbd, maxWidth, maxHeight, mean, std, weight, bias, newline };
}
