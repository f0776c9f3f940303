import { bool, f32, u32 } from '../gguf/gguf-writer.js';
import { type ConversionType, textType } from '../gguf/tensor-types.js';
import type { Checkpoint } from './checkpoint.js';
import type { Config } from './config.js';
import { generalFields } from './general.js';
import { type FilePlan, TensorTaker } from './plan.js';
import { specialTokenFields } from './special-tokens.js';
import { type Vocabulary, vocabularyFields } from './vocabulary.js';

/** Sizes of a Mistral decoder. */
interface MistralShape {
  nLayers: number;
  nEmbd: number;
  nHeads: number;
  nKvHeads: number;
  headSize: number;
  nFf: number;
  nVocab: number;
}

/** What transformers assumes of Mistral (configuration_mistral.py). */
export function mistralShape(config: Config): MistralShape {
  config.require('model_type', ['mistral'], 'mistral');
  config.require('hidden_act', ['silu'], 'silu');
  const nEmbd = config.count('hidden_size', 4096);
  const nHeads = config.count('num_attention_heads', 32);
  return {
    nLayers: config.count('num_hidden_layers', 32, 512),
    nEmbd,
    nHeads,
    nKvHeads: config.count('num_key_value_heads', 8),
    headSize: config.count('head_dim', nEmbd / nHeads),
    nFf: config.count('intermediate_size', 14336),
    nVocab: config.count('vocab_size', 32000),
  };
}

/**
 * The text model of a checkpoint as GGUF architecture `llama`, as llama.cpp's convert_hf_to_gguf.py writes Mistral.
 * @param rename see TensorTaker; names as of MistralForCausalLM
 */
export async function planLlama(
  checkpoint: Checkpoint,
  config: Config,
  vocabulary: Vocabulary,
  type: ConversionType,
  rename: (name: string) => string | null,
): Promise<FilePlan> {
  const shape = mistralShape(config);
  const { nLayers, nEmbd, nHeads, nKvHeads, headSize, nFf, nVocab } = shape;
  if (nHeads % nKvHeads !== 0 || headSize % 2 !== 0) {
    throw checkpoint.invalid(`${nHeads} heads of ${headSize} and ${nKvHeads} key/value heads do not fit`);
  }
  if (vocabulary.isUnigram) {
    const why = 'llama.cpp would join the pieces of its Unigram tokenizer by their scores, which gives other tokens';
    throw checkpoint.invalid(`${why}; only SentencePiece's BPE can be converted for this model`);
  }
  const taker = new TensorTaker(checkpoint, rename, (name, ne) => textType(type, name, ne, nLayers));
  taker.take('token_embd.weight', 'model.embed_tokens.weight', [nVocab, nEmbd]);
  for (let i = 0; i < nLayers; i++) {
    const take = (name: string, source: string, side: number[], rows?: () => Int32Array) =>
      taker.takeWeight(`blk.${i}.${name}`, `model.layers.${i}.${source}`, side, rows && { rows });
    take('attn_norm', 'input_layernorm', [nEmbd]);
    take('attn_q', 'self_attn.q_proj', [nHeads * headSize, nEmbd], interleaveHalves(nHeads, headSize));
    take('attn_k', 'self_attn.k_proj', [nKvHeads * headSize, nEmbd], interleaveHalves(nKvHeads, headSize));
    take('attn_v', 'self_attn.v_proj', [nKvHeads * headSize, nEmbd]);
    take('attn_output', 'self_attn.o_proj', [nEmbd, nHeads * headSize]);
    take('ffn_norm', 'post_attention_layernorm', [nEmbd]);
    take('ffn_gate', 'mlp.gate_proj', [nFf, nEmbd]);
    take('ffn_up', 'mlp.up_proj', [nFf, nEmbd]);
    take('ffn_down', 'mlp.down_proj', [nEmbd, nFf]);
  }
  taker.take('output_norm.weight', 'model.norm.weight', [nEmbd]);
  taker.take('output.weight', 'lm_head.weight', [nVocab, nEmbd]);
  taker.requireAllTaken();

  const prefixSpace = (await checkpoint.json('tokenizer_config.json'))?.add_prefix_space;
  return {
    kind: 'model',
    tensors: taker.plans,
    metadata: {
      ...(await generalFields(checkpoint, 'model', 'llama', type, taker.plans)),
      'llama.block_count': u32(nLayers),
      'llama.context_length': u32(config.count('max_position_embeddings', 131072, 2 ** 31 - 1)),
      'llama.embedding_length': u32(nEmbd),
      'llama.feed_forward_length': u32(nFf),
      'llama.attention.head_count': u32(nHeads),
      'llama.attention.head_count_kv': u32(nKvHeads),
      'llama.attention.key_length': u32(headSize),
      'llama.attention.value_length': u32(headSize),
      'llama.attention.layer_norm_rms_epsilon': f32(config.positive('rms_norm_eps', 1e-6)),
      'llama.rope.dimension_count': u32(headSize),
      'llama.rope.freq_base': f32(config.ropeTheta(10000)),
      'llama.vocab_size': u32(nVocab),
      ...vocabularyFields(vocabulary),
      ...(await specialTokenFields(checkpoint, nVocab)),
      ...(typeof prefixSpace === 'boolean' && { 'tokenizer.ggml.add_space_prefix': bool(prefixSpace) }),
    },
  };
}

/**
 * Rows of the result in the source: transformers turns the first half of a head against the second, llama.cpp's rotary
 * embedding for this architecture turns neighbours against each other.
 */
function interleaveHalves(nHeads: number, headSize: number): () => Int32Array {
  const half = headSize / 2;
  const source = (_: unknown, row: number) => {
    const inHead = row % headSize;
    return row - inHead + (inHead % 2) * half + Math.floor(inHead / 2);
  };
  return () => Int32Array.from({ length: nHeads * headSize }, source);
}
