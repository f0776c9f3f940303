import { XpatchError } from '../util/errors.js';
import { type GgufHeader, ggufNumber } from './gguf.js';

/** Architectures of llama.cpp in which nothing can be patched, and what they are. @internal */
export const NO_DECODERS: Readonly<Record<string, readonly string[]>> = {
  'an encoder-decoder model': ['t5', 't5encoder'],
  'a text encoder': [
    'bert',
    'eurobert',
    'gemma-embedding',
    'jina-bert-v2',
    'jina-bert-v3',
    'llama-embed',
    'modern-bert',
    'neo-bert',
    'nomic-bert',
    'nomic-bert-moe',
  ],
  'a diffusion model, whose tokens see later ones': ['dream', 'llada', 'llada-moe', 'rnd1'],
  'a recurrent model, whose layers pass on a state besides the residual stream': [
    'arwkv7',
    'mamba',
    'mamba2',
    'rwkv6',
    'rwkv6qwen2',
    'rwkv7',
  ],
  'a draft head for another model': ['dflash', 'eagle3', 'gemma4-assistant'],
  'an audio model': ['pockettts', 'qwen3tts', 'wavtokenizer-dec'],
};

/**
 * Refuses what is not a decoder with attention, before it is loaded.
 *
 * @throws XpatchError ARCHITECTURE_UNSUPPORTED.
 */
export function checkArchitecture(header: GgufHeader): void {
  const architecture = header.metadata.get('general.architecture') as string;
  const [kind] = Object.entries(NO_DECODERS).find(([, names]) => names.includes(architecture)) ?? [];
  const seesAll = header.metadata.get(`${architecture}.attention.causal`) === false;
  if (!kind && !seesAll) return;
  throw new XpatchError(
    'ARCHITECTURE_UNSUPPORTED',
    `'${architecture}' is ${kind ?? 'a model whose tokens see later ones'}; xpatch runs language models that are decoders with attention. Supported families: docs/families.md.`,
  );
}

/**
 * Why the states of a model that loads can be neither read nor patched; undefined if they can. A hook on the residual stream
 * has to reach everything that a block passes on.
 *
 * @param recurrent whether llama.cpp calls it a recurrent or hybrid model
 */
export function hookRefusal(header: GgufHeader, recurrent: boolean): string | undefined {
  const architecture = header.metadata.get('general.architecture') as string;
  const has = (key: string, from = 1) => {
    const value = header.metadata.get(`${architecture}.${key}`);
    // A list has a value for each layer.
    return value !== undefined && !((ggufNumber(header, `${architecture}.${key}`) ?? from) < from);
  };
  if (recurrent)
    return 'some of its layers pass on a recurrent state besides the residual stream, which a patch does not reach';
  if (architecture === 'gemma3n' || has('attention.shared_kv_layers'))
    return 'its later layers read the keys and values of earlier ones, so later tokens do not see a state patched there';
  if (has('embedding_length_per_layer_input') || header.tensors.some(({ name }) => /^per_layer_token_embd/.test(name)))
    return 'every layer reads its own embedding of the token, so a patch does not replace everything that a block knows about it';
  if (has('hyper_connection.count', 2)) return 'it has several residual streams, of which a hook sees one';
  return undefined;
}
