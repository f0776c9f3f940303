import { XpatchError } from '../errors.js';
import { type GgufHeader, ggufNumber, readGgufHeader } from './gguf.js';

/**
 * Checks that a file is a GGUF of a text model whose sizes fit together, because llama.cpp divides by and asserts on some of them.
 *
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID.
 */
export async function checkModelFile(path: string): Promise<GgufHeader> {
  const header = await readGgufHeader(path);
  const invalid = (why: string) => new XpatchError('GGUF_INVALID', `'${path}' is not a usable model: ${why}.`);
  const architecture = header.metadata.get('general.architecture');
  if (typeof architecture !== 'string' || !architecture) throw invalid('it names no architecture');
  if (architecture === 'clip') throw invalid('it is an mmproj (picture encoder); pass it as mmproj, beside its text model');
  const size = (key: string, max: number, required = true): number | undefined => {
    const value = ggufNumber(header, `${architecture}.${key}`);
    if (value === undefined) {
      if (required) throw invalid(`${architecture}.${key} is missing`);
      return undefined;
    }
    if (!Number.isInteger(value) || value < 1 || value > max) throw invalid(`${architecture}.${key} is ${value}`);
    return value;
  };
  size('block_count', 1024);
  const nEmbd = size('embedding_length', 1 << 18) as number;
  size('context_length', 2 ** 31 - 1);
  const heads = size('attention.head_count', 1 << 16, false);
  const kvHeads = size('attention.head_count_kv', 1 << 16, false);
  if (heads && kvHeads && heads % kvHeads !== 0) throw invalid(`${heads} attention heads cannot share ${kvHeads} key/value heads`);
  if (heads && !ggufNumber(header, `${architecture}.attention.key_length`) && nEmbd % heads !== 0) {
    throw invalid(`${heads} attention heads do not divide n_embd ${nEmbd}`);
  }
  const rope = size('rope.dimension_count', 1 << 16, false);
  if (rope && rope % 2) throw invalid(`${architecture}.rope.dimension_count is ${rope}, which is odd`);

  const embedding = header.tensors.find((t) => t.name === 'token_embd.weight');
  if (!embedding) throw invalid('it has no token_embd.weight');
  if (embedding.shape[0] !== nEmbd) throw invalid(`token_embd.weight has rows of ${embedding.shape[0]}, expected ${nEmbd}`);
  return header;
}

/**
 * Checks that a file is an mmproj with an image encoder. Whether its rows have the width that the model reads is checked by
 * mtmd, which alone knows every projector.
 *
 * @returns The projector's type.
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID, MMPROJ_INVALID.
 */
export async function checkProjectorFile(path: string): Promise<string> {
  const header = await readGgufHeader(path);
  const invalid = (why: string) => new XpatchError('MMPROJ_INVALID', `'${path}' is not a usable mmproj: ${why}.`);
  const architecture = header.metadata.get('general.architecture');
  if (architecture !== 'clip') throw invalid(`its architecture is '${architecture}', an mmproj has 'clip'`);
  if (header.metadata.get('clip.has_vision_encoder') !== true) throw invalid('it has no image encoder');
  for (const key of ['image_size', 'patch_size', 'embedding_length', 'block_count', 'attention.head_count']) {
    const value = ggufNumber(header, `clip.vision.${key}`);
    // Some of these are arrays or absent in encoders that are no plain ViT: llama.cpp checks those itself.
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 1 << 20)) {
      throw invalid(`clip.vision.${key} is ${value}`);
    }
  }
  return String(header.metadata.get('clip.vision.projector_type') ?? header.metadata.get('clip.projector_type') ?? 'unknown');
}
