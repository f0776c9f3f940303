import { GGUF_TYPE, type GgufArray, type GgufHeader, ggufNumber } from '../gguf/gguf.js';
import { OWN_KEYS } from '../gguf/own-keys.js';
import type { NativeQkNorm } from '../native/addon.js';
import { XpatchError } from '../util/errors.js';

/** llama.cpp's architecture that Persimmon runs as: the same but for these norms. */
const ARCHITECTURE = 'nemotron';

/**
 * The LayerNorms of queries and keys that a converted Persimmon carries in its metadata; undefined for a model without.
 * `header` is one that `checkModelFile` has accepted.
 *
 * @throws XpatchError GGUF_INVALID when some are missing, are not n_layer * head_size finite numbers, or the projections
 *   that they belong to are not as the runtime needs them.
 */
export function readQkNorm(header: GgufHeader, path: string): NativeQkNorm | undefined {
  const { metadata, types, tensors } = header;
  if (![...metadata.keys()].some((key) => key.startsWith('xpatch.qk_norm.'))) return undefined;
  const invalid = (why: string) =>
    new XpatchError(
      'GGUF_INVALID',
      `'${path}' is not a usable model: ${why}. Convert it again (xpatch models convert).`,
    );
  const architecture = metadata.get('general.architecture');
  if (architecture !== ARCHITECTURE) {
    throw invalid(`it has norms of queries and keys for '${ARCHITECTURE}', but is '${architecture}'`);
  }
  const number = (key: string) => ggufNumber(header, `${ARCHITECTURE}.${key}`);
  const nLayers = number('block_count') as number;
  const nEmbd = number('embedding_length') as number;
  const heads = number('attention.head_count');
  if (!heads) throw invalid(`${ARCHITECTURE}.attention.head_count is missing`);
  const headSize = nEmbd / heads;
  if (
    (number('attention.key_length') ?? headSize) !== headSize ||
    (number('attention.head_count_kv') ?? heads) !== heads
  ) {
    throw invalid('its heads of queries and keys are not alike');
  }
  const epsilon = ggufNumber(header, OWN_KEYS.qkNormEpsilon);
  if (epsilon === undefined || !(epsilon > 0 && epsilon <= 1)) throw invalid(`${OWN_KEYS.qkNormEpsilon} is ${epsilon}`);

  const list = (key: string): Float32Array => {
    const array = metadata.get(key) as GgufArray | undefined;
    if (typeof array !== 'object' || types.get(key) !== GGUF_TYPE.float32) {
      throw invalid(`${key} is missing or no list of float32`);
    }
    if (array.length !== nLayers * headSize) {
      throw invalid(
        `${key} has ${array.length} values, ${nLayers} layers with heads of ${headSize} need ${nLayers * headSize}`,
      );
    }
    const values = Float32Array.from(array.values as number[]);
    if (!values.every(Number.isFinite)) throw invalid(`${key} holds NaN or infinity`);
    return values;
  };

  const norms = {
    nLayers,
    headSize,
    epsilon,
    qWeight: list(OWN_KEYS.qNormWeight),
    qBias: list(OWN_KEYS.qNormBias),
    kWeight: list(OWN_KEYS.kNormWeight),
    kBias: list(OWN_KEYS.kNormBias),
  };

  // The norm is applied where the bias of a projection of its own is added.
  const names = new Set(tensors.map(({ name }) => name));
  for (let layer = 0; layer < nLayers; layer++) {
    for (const part of ['q', 'k'] as const) {
      for (const kind of ['weight', 'bias']) {
        const name = `blk.${layer}.attn_${part}.${kind}`;
        if (!names.has(name)) throw invalid(`it has no '${name}'`);
      }
    }
    if (names.has(`blk.${layer}.attn_qkv.weight`)) throw invalid(`its blk.${layer}.attn_qkv.weight is not taken apart`);
  }
  return norms;
}
