import { f32, type GgufField, text, u32 } from '../gguf/gguf-writer.js';
import { OWN_KEYS } from '../gguf/own-keys.js';
import { type ConversionType, textType } from '../gguf/tensor-types.js';
import type { Checkpoint } from './checkpoint.js';
import type { Config } from './config.js';
import { generalFields } from './general.js';
import { type FilePlan, TensorTaker } from './plan.js';
import { specialTokenFields } from './special-tokens.js';
import { type Vocabulary, vocabularyFields } from './vocabulary.js';

/** Sizes of a Persimmon decoder; what config.json leaves out is as in transformers' configuration_persimmon.py. */
export function persimmonShape(config: Config) {
  return {
    nLayers: config.count('num_hidden_layers', 36, 512),
    nEmbd: config.count('hidden_size', 4096),
    nHeads: config.count('num_attention_heads', 64),
    nFf: config.count('intermediate_size', 16384),
    nVocab: config.count('vocab_size', 262144),
  };
}

/**
 * A Persimmon decoder as GGUF architecture `nemotron`, which has all of it but the LayerNorm of queries and keys: those are
 * in keys of our own, and the runtime applies them. The fused matrix of queries, keys and values is taken apart.
 * @param rename see TensorTaker; names as of PersimmonForCausalLM
 */
export async function planPersimmon(
  checkpoint: Checkpoint,
  config: Config,
  vocabulary: Vocabulary,
  type: ConversionType,
  rename: (name: string) => string | null,
): Promise<FilePlan> {
  config.require('model_type', ['persimmon'], 'persimmon');
  config.require('hidden_act', ['relu2'], 'relu2');
  config.require('qk_layernorm', [true], true);
  const { nLayers, nEmbd, nHeads, nFf, nVocab } = persimmonShape(config);
  const rope = config.section('rope_parameters');
  const rotary = (rope.has('partial_rotary_factor') ? rope : config).positive('partial_rotary_factor', 0.5);
  const headSize = nEmbd / nHeads;
  const rotated = Math.floor(headSize * rotary);
  if (!Number.isInteger(headSize) || rotary > 1 || rotated < 2 || rotated % 2 !== 0) {
    throw checkpoint.invalid(`${nHeads} heads in ${nEmbd} channels, of which ${rotary} are rotated, do not fit`);
  }
  const epsilon = config.positive('layer_norm_eps', 1e-5);

  const taker = new TensorTaker(checkpoint, rename, (name, ne) => textType(type, name, ne, nLayers));
  taker.take('token_embd.weight', 'model.embed_tokens.weight', [nVocab, nEmbd]);
  for (let i = 0; i < nLayers; i++) {
    const block = `blk.${i}`;
    const source = `model.layers.${i}`;
    taker.takeBoth(`${block}.attn_norm`, `${source}.input_layernorm`, [nEmbd]);
    for (const [part, name] of ['q', 'k', 'v'].entries()) {
      takePart(taker, `${block}.attn_${name}`, `${source}.self_attn.query_key_value`, part, nHeads, headSize);
    }
    taker.takeBoth(`${block}.attn_output`, `${source}.self_attn.dense`, [nEmbd, nEmbd]);
    taker.takeBoth(`${block}.ffn_norm`, `${source}.post_attention_layernorm`, [nEmbd]);
    taker.takeBoth(`${block}.ffn_up`, `${source}.mlp.dense_h_to_4h`, [nFf, nEmbd]);
    taker.takeBoth(`${block}.ffn_down`, `${source}.mlp.dense_4h_to_h`, [nEmbd, nFf]);
  }
  taker.takeBoth('output_norm', 'model.final_layernorm', [nEmbd]);
  taker.take('output.weight', 'lm_head.weight', [nVocab, nEmbd]);
  const norms = await readNorms(checkpoint, taker, nLayers, headSize);
  taker.requireAllTaken();

  if (vocabulary.tokenizerJson === undefined) {
    throw checkpoint.invalid('it has no tokenizer.json, which tokenises the texts of this model; download it');
  }
  return {
    kind: 'model',
    tensors: taker.plans,
    metadata: {
      ...(await generalFields(checkpoint, 'model', 'nemotron', type, taker.plans)),
      'nemotron.block_count': u32(nLayers),
      'nemotron.context_length': u32(config.count('max_position_embeddings', 16384, 2 ** 31 - 1)),
      'nemotron.embedding_length': u32(nEmbd),
      'nemotron.feed_forward_length': u32(nFf),
      'nemotron.attention.head_count': u32(nHeads),
      'nemotron.attention.head_count_kv': u32(nHeads),
      'nemotron.attention.layer_norm_epsilon': f32(epsilon),
      'nemotron.rope.dimension_count': u32(rotated),
      'nemotron.rope.freq_base': f32(config.ropeTheta(25000)),
      'nemotron.rope.scaling.type': text('none'),
      'nemotron.vocab_size': u32(nVocab),
      ...norms,
      [OWN_KEYS.qkNormEpsilon]: f32(epsilon),
      ...vocabularyFields(vocabulary),
      ...(await specialTokenFields(checkpoint, nVocab)),
      [OWN_KEYS.tokenizer]: text('huggingface'),
      [OWN_KEYS.tokenizerJson]: text(vocabulary.tokenizerJson),
    },
  };
}

/** The fused projection holds, head by head, the rows of its query, its key and its value. */
function takePart(
  taker: TensorTaker,
  name: string,
  source: string,
  part: number,
  nHeads: number,
  headSize: number,
): void {
  const nEmbd = nHeads * headSize;
  const rows = () =>
    Int32Array.from({ length: nEmbd }, (_, row) => {
      const inHead = row % headSize;
      return 3 * (row - inHead) + part * headSize + inHead;
    });
  taker.take(`${name}.weight`, `${source}.weight`, [nEmbd, nEmbd], { rows, from: [3 * nEmbd, nEmbd] });
  const heads = () => Int32Array.from({ length: nHeads }, (_, head) => 3 * head + part);
  taker.take(`${name}.bias`, `${source}.bias`, [nEmbd], { rows: heads, rowLength: headSize, from: [3 * nEmbd] });
}

async function readNorms(
  checkpoint: Checkpoint,
  taker: TensorTaker,
  nLayers: number,
  headSize: number,
): Promise<Record<string, GgufField>> {
  const fields: Record<string, GgufField> = {};
  for (const [key, part] of [
    [OWN_KEYS.qNormWeight, 'q_layernorm.weight'],
    [OWN_KEYS.qNormBias, 'q_layernorm.bias'],
    [OWN_KEYS.kNormWeight, 'k_layernorm.weight'],
    [OWN_KEYS.kNormBias, 'k_layernorm.bias'],
  ] as const) {
    const list = new Float32Array(nLayers * headSize);
    for (let i = 0; i < nLayers; i++) {
      const name = `model.layers.${i}.self_attn.${part}`;
      const tensor = taker.find(name);
      taker.requireShape(tensor, name, [headSize]);
      const values = await tensor.file.readFloat32(tensor.info.name);
      if (!values.every(Number.isFinite)) throw checkpoint.invalid(`'${name}' holds NaN or infinity`);
      list.set(values, i * headSize);
    }
    fields[key] = { type: 'f32', list };
  }
  return fields;
}
