import { open } from 'node:fs/promises';
import { type GgufHeader, type GgufTensor, readGgufHeader } from '../gguf/gguf.js';
import { layOutGguf, text, u32 } from '../gguf/gguf-writer.js';
import { GGML } from '../gguf/tensor-types.js';
import { UNKNOWN_HASH } from '../model/capture-file.js';
import { XpatchError } from '../util/errors.js';
import { writeFileAtomic } from '../util/files.js';
import type { DirectionNumbering, TaskVectorInfo } from './vector-origin.js';

// Control vectors of llama.cpp and repeng: a GGUF file with one direction per layer, `direction.N`, F32 [n_embd]. llama.cpp adds it to
// the output of block N, counted from 0, and leaves out block 0.

const ARCHITECTURE = 'controlvector';

/** Whether a path names such a file. */
export const isControlVector = (path: string): boolean => /\.gguf$/i.test(path);

/**
 * What a control-vector file holds. Of the model it was made from, only the architecture is known.
 *
 * @throws {XpatchError} FILE_NOT_FOUND, VECTOR_INVALID
 */
export async function readControlVector(
  path: string,
  numbering: DirectionNumbering,
): Promise<{ info: TaskVectorInfo; data: Float32Array }> {
  const { metadata, tensors, dataOffset } = readHeader(path);
  const invalid = (problem: string) => {
    const wayOut = 'Control vectors are made by xpatch steer, repeng and cvector-generator.';
    return new XpatchError('VECTOR_INVALID', `${path} is not a usable control vector: ${problem}. ${wayOut}`);
  };
  const found: { layer: number; tensor: GgufTensor }[] = [];
  for (const tensor of tensors) {
    const [, n] = /^direction\.(\d{1,6})$/.exec(tensor.name) ?? [];
    if (n === undefined) continue;
    const layer = Number(n) - (numbering === 'measured' ? 1 : 0);
    if (layer < 0) throw invalid('direction.0 was measured before the first block');
    if (tensor.type !== GGML.F32 || tensor.shape.length !== 1) throw invalid(`${tensor.name} is not one row of F32`);
    found.push({ layer, tensor });
  }
  found.sort((a, b) => a.layer - b.layer);
  const nEmbd = found[0]?.tensor.shape[0];
  if (nEmbd === undefined) {
    const kind = metadata.get('general.architecture');
    throw invalid(`it has no tensor direction.N${typeof kind === 'string' ? ` (it is a ${kind} file)` : ''}`);
  }
  const other = found.find(({ tensor }) => tensor.shape[0] !== nEmbd);
  if (other) throw invalid(`${other.tensor.name} is ${other.tensor.shape[0]} wide, another ${nEmbd}`);
  const data = new Float32Array(found.length * nEmbd);
  await using file = await open(path);
  for (const [row, { tensor }] of found.entries()) {
    const bytes = Buffer.from(data.buffer, 4 * row * nEmbd, 4 * nEmbd);
    await file.read(bytes, 0, bytes.length, dataOffset + tensor.offset);
  }
  const hint = metadata.get(`${ARCHITECTURE}.model_hint`);
  const architecture = typeof hint === 'string' ? hint : 'unknown';
  const layers = found.map(({ layer }) => layer);
  const nLayers = (layers.at(-1) as number) + 1;
  const model = { hash: UNKNOWN_HASH, architecture, name: architecture, nEmbd, nLayers };
  const origin = { op: 'control-vector', numbering } as const;
  return { info: { model, hook: 'resid_post', layers, readPosition: 'unknown', origin }, data };
}

/** Callers switch on one code, whatever part of the file is broken. */
function readHeader(path: string): GgufHeader {
  try {
    return readGgufHeader(path, 'control vector');
  } catch (error) {
    if (!(error instanceof XpatchError && error.code === 'GGUF_INVALID')) throw error;
    throw new XpatchError('VECTOR_INVALID', error.message, { cause: error });
  }
}

/**
 * Writes directions as llama.cpp and repeng read them: `direction.N` for block N. Block 0 is left out, as llama.cpp has no place for it.
 *
 * @param data [layers, n_embd]
 * @throws {XpatchError} VECTOR_INVALID if there is only layer 0, or for another point than `resid_post`; FILE_WRITE
 */
export async function writeControlVector(
  path: string,
  { model, hook, layers }: Pick<TaskVectorInfo, 'model' | 'hook' | 'layers'>,
  data: Float32Array,
): Promise<void> {
  if (hook !== 'resid_post') {
    const problem = `A control-vector file is added to the outputs of blocks, and these are states at '${hook}'`;
    throw new XpatchError('VECTOR_INVALID', `${problem}. Use a .safetensors file, or capture at resid_post.`);
  }
  const kept = layers.flatMap((layer, row) => (layer > 0 ? [{ layer, row }] : []));
  if (kept.length === 0) {
    const wayOut = 'Use another layer, or a .safetensors file.';
    throw new XpatchError('VECTOR_INVALID', `A control-vector file has no place for layer 0. ${wayOut}`);
  }
  const metadata = {
    'general.architecture': text(ARCHITECTURE),
    [`${ARCHITECTURE}.model_hint`]: text(model.architecture),
    [`${ARCHITECTURE}.layer_count`]: u32(kept.length),
  };
  const tensors = kept.map(({ layer }) => ({ name: `direction.${layer}`, shape: [model.nEmbd], type: GGML.F32 }));
  const { header, places, size } = layOutGguf(metadata, tensors);
  const bytes = Buffer.alloc(size);
  bytes.set(header);
  for (const [i, { row }] of kept.entries()) {
    const direction = data.subarray(row * model.nEmbd, (row + 1) * model.nEmbd);
    bytes.set(Buffer.from(direction.buffer, direction.byteOffset, direction.byteLength), places[i]?.offset);
  }
  await writeFileAtomic(path, bytes);
}
