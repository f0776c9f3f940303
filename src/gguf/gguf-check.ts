import { existsSync } from 'node:fs';
import { XpatchError } from '../util/errors.js';
import { checkArchitecture } from './architecture-check.js';
import { checkModelFacts, checkWeights } from './facts.js';
import { GGUF_TYPE, type GgufArray, type GgufHeader, ggufNumber, readGgufHeader } from './gguf.js';
import { splitPaths } from './split.js';

/** The way out for files that contradict themselves. */
export const AGAIN = 'Download or convert it again';

/**
 * Checks that a file is a GGUF of a text model whose parts fit together: what llama.cpp answers with an assertion, which
 * would end the process, is refused here. What it refuses itself is left to it.
 *
 * @throws XpatchError FILE_NOT_FOUND, GGUF_INVALID, ARCHITECTURE_UNSUPPORTED.
 */
export function checkModelFile(path: string): GgufHeader {
  const header = readParts(path);
  const invalid = (why: string, wayOut = AGAIN) =>
    new XpatchError('GGUF_INVALID', `'${path}' is not a usable model: ${why}. ${wayOut}.`);
  const architecture = header.metadata.get('general.architecture');
  if (typeof architecture !== 'string' || !architecture) throw invalid('it names no architecture');
  if (architecture === 'clip')
    throw invalid('it is an mmproj (picture encoder)', 'Pass it as mmproj, along with its text model');
  checkArchitecture(header);
  const size = (key: string, max: number, required = true): number | undefined => {
    const value = ggufNumber(header, `${architecture}.${key}`);
    if (value === undefined) {
      if (required) throw invalid(`${architecture}.${key} is missing`);
      return undefined;
    }
    if (!Number.isInteger(value) || value < 1 || value > max) throw invalid(`${architecture}.${key} is ${value}`);
    return value;
  };
  size('block_count', MAX_LAYERS);
  const nEmbd = size('embedding_length', 1 << 18) as number;
  size('context_length', 2 ** 31 - 1);
  const heads = size('attention.head_count', 1 << 16, false);
  const kvHeads = size('attention.head_count_kv', 1 << 16, false);
  if (heads && kvHeads && heads % kvHeads !== 0)
    throw invalid(`${heads} attention heads cannot share ${kvHeads} key/value heads`);
  const keyLength = size('attention.key_length', 1 << 16, false);
  size('attention.value_length', 1 << 16, false);
  if (heads && !keyLength && nEmbd % heads !== 0)
    throw invalid(`${heads} attention heads do not divide n_embd ${nEmbd}`);
  const rope = size('rope.dimension_count', 1 << 16, false);
  if (rope && rope % 2) throw invalid(`${architecture}.rope.dimension_count is ${rope}, which is odd`);
  if (rope && heads && rope > (keyLength ?? nEmbd / heads)) {
    throw invalid(`${architecture}.rope.dimension_count is ${rope}, more than a head has`);
  }
  const scaling = header.metadata.get(`${architecture}.rope.scaling.type`);
  if (typeof scaling === 'string' && !ROPE_SCALINGS.includes(scaling)) {
    throw invalid(`${architecture}.rope.scaling.type is '${scaling}', known are ${ROPE_SCALINGS.join(', ')}`);
  }
  checkExperts(header, architecture, invalid);
  checkFloats(header, `${architecture}.`, invalid);
  checkWeights(header.tensors, invalid);
  checkModelFacts(header, architecture, invalid);

  const tokens = header.metadata.get('tokenizer.ggml.tokens') as GgufArray | undefined;
  if (tokens?.repeats)
    throw invalid('a text occurs twice in its vocabulary, of which llama.cpp reads each up to its first NUL');

  const embedding = header.tensors.find((t) => t.name === 'token_embd.weight');
  if (!embedding) throw invalid('it has no token_embd.weight');
  const [said, rows] = [ggufNumber(header, `${architecture}.vocab_size`), embedding.shape[1]];
  // llama.cpp would fill a list of that length.
  if (!tokens && said !== undefined && said !== rows)
    throw invalid(`vocab_size is ${said}, its embeddings are ${rows}`);
  if (embedding.shape[0] !== nEmbd)
    throw invalid(`token_embd.weight has rows of ${embedding.shape[0]}, expected ${nEmbd}`);
  return header;
}

/**
 * The files of a model: itself, or all parts of one that is split over several, which llama.cpp finds by their names.
 *
 * @param path of the first part
 */
export function modelParts(path: string): string[] {
  return splitPaths(path).every((part) => existsSync(part)) ? splitPaths(path) : [path];
}

/** The header of a model, with the tensors of all its parts. */
function readParts(path: string): GgufHeader {
  const first = readGgufHeader(path);
  const count = ggufNumber(first, 'split.count') ?? 1;
  if (count <= 1) return first;
  const invalid = (why: string) => new XpatchError('GGUF_INVALID', `'${path}' is not a usable model: ${why}.`);
  const paths = splitPaths(path);
  if (paths.length !== count)
    throw invalid(
      `it is one of ${count} parts, but its name does not end in -00001-of-${String(count).padStart(5, '0')}.gguf`,
    );
  if (paths[0] !== path) throw invalid(`it is not the first of its parts: name '${paths[0]}'`);
  const headers = paths.map((part, i) => (i === 0 ? first : readGgufHeader(part)));
  for (const [i, header] of headers.entries()) {
    const no = ggufNumber(header, 'split.no');
    if (no !== i || ggufNumber(header, 'split.count') !== count) throw invalid(`'${paths[i]}' says it is part ${no}`);
  }
  const tensors = headers.flatMap((header) => header.tensors);
  const total = ggufNumber(first, 'split.tensors.count');
  if (total !== tensors.length) throw invalid(`its parts have ${tensors.length} tensors, expected ${total}`);
  if (new Set(tensors.map(({ name }) => name)).size !== tensors.length) throw invalid('two parts have the same tensor');
  return { ...first, tensors };
}

type Invalid = (why: string) => XpatchError;

/** llama.cpp's LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS. */
const MAX_LAYERS = 512;
const MAX_EXPERTS = 1024;

const ROPE_SCALINGS = ['none', 'linear', 'yarn', 'longrope'];

function checkExperts(header: GgufHeader, architecture: string, invalid: Invalid): void {
  const count = ggufNumber(header, `${architecture}.expert_count`) ?? 0;
  const used = ggufNumber(header, `${architecture}.expert_used_count`) ?? 0;
  const groups = ggufNumber(header, `${architecture}.expert_group_count`) ?? 0;
  const groupsUsed = ggufNumber(header, `${architecture}.expert_group_used_count`) ?? 0;
  const fits = count ? used > 0 && used <= count && count <= MAX_EXPERTS : used === 0 && groups === 0;
  const groupsFit = groups <= 1 || (count % groups === 0 && groups < count && groupsUsed > 0 && groupsUsed < groups);
  if (!fits || !groupsFit) throw invalid(`${used} of ${count} experts in ${groupsUsed} of ${groups} groups cannot be`);
}

/** Refuses NaN and infinities among settings, and norms' epsilons that are not small positive numbers. */
export function checkFloats(header: GgufHeader, prefix: string, invalid: Invalid): void {
  for (const [key, type] of header.types) {
    if (type !== GGUF_TYPE.float32 || !key.startsWith(prefix)) continue;
    const value = header.metadata.get(key);
    for (const number of typeof value === 'number' ? [value] : (value as GgufArray).values) {
      if (!Number.isFinite(number)) throw invalid(`${key} is ${number}`);
    }
    if (key.endsWith('epsilon') && !((value as number) >= 0 && (value as number) <= 1))
      throw invalid(`${key} is ${value}`);
  }
}
