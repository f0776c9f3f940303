import { bool, f32, text, u32 } from '../gguf/gguf-writer.js';
import { OWN_KEYS } from '../gguf/own-keys.js';
import { type ConversionType, imageConversion, imageType } from '../gguf/tensor-types.js';
import type { Checkpoint } from './checkpoint.js';
import type { Config } from './config.js';
import { generalFields } from './general.js';
import { mistralShape, planLlama } from './llama.js';
import { type FilePlan, TensorTaker } from './plan.js';
import { tokenId, type Vocabulary } from './vocabulary.js';

const FAKE_TOKEN = '<fake_token_around_image>';

/** The two files of an Idefics2 checkpoint: a Mistral, and the picture encoder in the layout of docs/convert.md. */
export async function planIdefics2(
  checkpoint: Checkpoint,
  root: Config,
  preprocessor: Config,
  readVocabulary: (size: number) => Promise<Vocabulary>,
  type: ConversionType,
): Promise<FilePlan[]> {
  const config = textConfig(root);
  const vocabulary = await readVocabulary(mistralShape(config).nVocab);
  return [
    await planLlama(checkpoint, config, vocabulary, type, textName),
    await planEncoder(checkpoint, root, preprocessor, vocabulary, type),
  ];
}

/** Without one, transformers takes a Mistral with other settings than that one has by itself. */
function textConfig(root: Config): Config {
  const config = root.section('text_config');
  return root.has('text_config') ? config : config.with({ max_position_embeddings: 32768, rms_norm_eps: 1e-5 });
}

function textName(name: string): string | null {
  if (/^model\.(vision_model|connector)\./.test(name) || name.endsWith('.rotary_emb.inv_freq')) return null;
  return name.replace(/^model\.text_model\./, 'model.');
}

function imageName(name: string): string | null {
  const part = /^model\.((?:vision_model|connector)\..*)$/.exec(name)?.[1];
  return part === undefined || part.endsWith('.position_ids') ? null : part;
}

const VISION = 'vision_model';
const RESAMPLER = 'connector.perceiver_resampler';

/** Sizes that config.json leaves out are those of transformers' configuration_idefics2.py. */
async function planEncoder(
  checkpoint: Checkpoint,
  root: Config,
  preprocessor: Config,
  vocabulary: Vocabulary,
  type: ConversionType,
): Promise<FilePlan> {
  const vision = root.section('vision_config');
  vision.require('hidden_act', ['gelu_pytorch_tanh'], 'gelu_pytorch_tanh');
  vision.require('num_channels', [3], 3);
  const nEmbd = vision.count('hidden_size', 768);
  const nFf = vision.count('intermediate_size', 3072);
  const nBlocks = vision.count('num_hidden_layers', 12, 512);
  const nHeads = vision.count('num_attention_heads', 12);
  const imageSize = vision.count('image_size', 224, 1 << 14);
  const patchSize = vision.count('patch_size', 32, 1 << 10);
  const side = Math.floor(imageSize / patchSize);
  if (nEmbd % nHeads !== 0) throw checkpoint.invalid(`${nHeads} heads do not divide ${nEmbd} channels of the encoder`);

  const text_ = textConfig(root);
  const { nEmbd: nOut, nFf: nProjection } = mistralShape(text_);
  const perceiver = root.section('perceiver_config');
  perceiver.require('hidden_act', ['silu'], 'silu');
  const nLatents = perceiver.count('resampler_n_latents', 64);
  const depth = perceiver.count('resampler_depth', 3, 512);
  const heads = perceiver.count('resampler_n_heads', 16);
  const kvHeads = perceiver.count('num_key_value_heads', 4);
  const headSize = perceiver.count('resampler_head_dim', 96);
  if (heads % kvHeads !== 0) throw checkpoint.invalid(`${heads} heads of the resampler cannot share ${kvHeads}`);
  // As transformers: where the width is not that of the text model, width and epsilon are both defaults and give way.
  const ownWidth = perceiver.count('hidden_size', 4096) === nOut;
  const epsilon = ownWidth ? perceiver.positive('rms_norm_eps', 1e-6) : text_.positive('rms_norm_eps', 1e-6);

  const taker = new TensorTaker(checkpoint, imageName, (name, ne) => imageType(type, name, ne));
  taker.takeBoth('v.patch_embd', `${VISION}.embeddings.patch_embedding`, [nEmbd, 3, patchSize, patchSize]);
  taker.takeWeight('v.position_embd', `${VISION}.embeddings.position_embedding`, [side * side, nEmbd]);
  for (let i = 0; i < nBlocks; i++) {
    const block = `v.blk.${i}`;
    const source = `${VISION}.encoder.layers.${i}`;
    taker.takeBoth(`${block}.ln1`, `${source}.layer_norm1`, [nEmbd]);
    taker.takeBoth(`${block}.attn_q`, `${source}.self_attn.q_proj`, [nEmbd, nEmbd]);
    taker.takeBoth(`${block}.attn_k`, `${source}.self_attn.k_proj`, [nEmbd, nEmbd]);
    taker.takeBoth(`${block}.attn_v`, `${source}.self_attn.v_proj`, [nEmbd, nEmbd]);
    taker.takeBoth(`${block}.attn_out`, `${source}.self_attn.out_proj`, [nEmbd, nEmbd]);
    taker.takeBoth(`${block}.ln2`, `${source}.layer_norm2`, [nEmbd]);
    taker.takeBoth(`${block}.ffn_up`, `${source}.mlp.fc1`, [nFf, nEmbd]);
    taker.takeBoth(`${block}.ffn_down`, `${source}.mlp.fc2`, [nEmbd, nFf]);
  }
  taker.takeBoth('v.post_ln', `${VISION}.post_layernorm`, [nEmbd]);

  taker.takeWeight('mm.gate', 'connector.modality_projection.gate_proj', [nProjection, nEmbd]);
  taker.takeWeight('mm.up', 'connector.modality_projection.up_proj', [nProjection, nEmbd]);
  taker.takeWeight('mm.down', 'connector.modality_projection.down_proj', [nOut, nProjection]);
  taker.take('resampler.latents', `${RESAMPLER}.latents`, [nLatents, nOut]);
  for (let i = 0; i < depth; i++) {
    const block = `resampler.blk.${i}`;
    const source = `${RESAMPLER}.layers.${i}`;
    taker.takeWeight(`${block}.ln_q`, `${source}.input_latents_norm`, [nOut]);
    taker.takeWeight(`${block}.ln_kv`, `${source}.input_context_norm`, [nOut]);
    taker.takeWeight(`${block}.attn_q`, `${source}.self_attn.q_proj`, [heads * headSize, nOut]);
    taker.takeWeight(`${block}.attn_k`, `${source}.self_attn.k_proj`, [kvHeads * headSize, nOut]);
    taker.takeWeight(`${block}.attn_v`, `${source}.self_attn.v_proj`, [kvHeads * headSize, nOut]);
    taker.takeWeight(`${block}.attn_out`, `${source}.self_attn.o_proj`, [nOut, heads * headSize]);
    taker.takeWeight(`${block}.ln_ffn`, `${source}.post_attention_layernorm`, [nOut]);
    taker.takeWeight(`${block}.ffn_gate`, `${source}.mlp.gate_proj`, [4 * nOut, nOut]);
    taker.takeWeight(`${block}.ffn_up`, `${source}.mlp.up_proj`, [4 * nOut, nOut]);
    taker.takeWeight(`${block}.ffn_down`, `${source}.mlp.down_proj`, [nOut, 4 * nOut]);
  }
  taker.takeWeight('resampler.norm', `${RESAMPLER}.norm`, [nOut]);
  taker.requireAllTaken();

  const fake = tokenId(vocabulary, FAKE_TOKEN);
  if (fake === undefined) throw checkpoint.invalid(`its tokenizer has no ${FAKE_TOKEN}`);
  preprocessor.requirePixels();
  const size = preprocessor.section('size');
  const { mean, std } = preprocessor.normalisation();
  return {
    kind: 'mmproj',
    tensors: taker.plans,
    metadata: {
      ...(await generalFields(checkpoint, 'mmproj', 'clip', imageConversion(type), taker.plans)),
      'clip.has_vision_encoder': bool(true),
      'clip.projector_type': text('idefics2'),
      'clip.vision.image_size': u32(imageSize),
      'clip.vision.patch_size': u32(patchSize),
      'clip.vision.embedding_length': u32(nEmbd),
      'clip.vision.feed_forward_length': u32(nFf),
      'clip.vision.block_count': u32(nBlocks),
      'clip.vision.projection_dim': u32(nOut),
      'clip.vision.attention.head_count': u32(nHeads),
      'clip.vision.attention.layer_norm_epsilon': f32(vision.positive('layer_norm_eps', 1e-6)),
      'clip.vision.image_mean': { type: 'f32', list: mean },
      'clip.vision.image_std': { type: 'f32', list: std },
      'clip.vision.resampler.n_latents': u32(nLatents),
      'clip.vision.resampler.block_count': u32(depth),
      'clip.vision.resampler.head_count': u32(heads),
      'clip.vision.resampler.head_count_kv': u32(kvHeads),
      'clip.vision.resampler.head_dim': u32(headSize),
      'clip.vision.resampler.layer_norm_rms_epsilon': f32(epsilon),
      [OWN_KEYS.idefics2ShortestEdge]: u32(size.count('shortest_edge', 378)),
      [OWN_KEYS.idefics2LongestEdge]: u32(size.count('longest_edge', 980)),
      [OWN_KEYS.imageBegin]: u32(fake),
      [OWN_KEYS.imageEnd]: u32(fake),
    },
  };
}
