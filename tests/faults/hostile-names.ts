// What hostile.ts draws from: telling values, and names that some model or encoder of llama.cpp reads.
/** Values that sizes, counts and ids are set to, beside what they are near to. */
export const TELLING = [
  0,
  1,
  2,
  3,
  4,
  5,
  7,
  8,
  16,
  17,
  31,
  32,
  64,
  100,
  255,
  256,
  1000,
  65_536,
  2 ** 24,
  4e8,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
];
export const TELLING_FLOATS = [0, -1, 1, 1e-30, 1e30, 10_000, Number.NaN, Number.POSITIVE_INFINITY, -0.5];

/** Ends of keys that some architecture of llama.cpp reads: the file's own architecture stands before them. */
export const MODEL_KEYS =
  `vocab_size context_length embedding_length embedding_length_out embedding_length_per_layer_input features_length
block_count leading_dense_block_count feed_forward_length expert_feed_forward_length expert_shared_feed_forward_length use_parallel_residual
expert_count expert_used_count expert_shared_count expert_group_count expert_group_used_count expert_weights_norm expert_gating_func
moe_every_n_layers nextn_predict_layers n_deepstack_layers pooling_type logit_scale attn_logit_softcapping final_logit_softcapping
residual_scale embedding_scale token_shift_count interleave_moe_layer_step full_attention_interval attention.head_count
attention.head_count_kv attention.max_alibi_bias attention.clamp_kqv attention.key_length attention.value_length
attention.layer_norm_epsilon attention.layer_norm_rms_epsilon attention.group_norm_groups attention.causal attention.q_lora_rank
attention.kv_lora_rank attention.sliding_window attention.sliding_window_pattern attention.scale attention.temperature_length
attention.key_length_mla attention.value_length_mla attention.key_length_swa attention.value_length_swa attention.shared_kv_layers
attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k rope.dimension_count rope.dimension_count_swa
rope.dimension_sections rope.freq_base rope.freq_base_swa rope.scale_linear rope.scaling.factor rope.scaling.type
rope.scaling.original_context_length rope.scaling.attn_factor ssm.conv_kernel ssm.inner_size ssm.state_size ssm.time_step_rank
ssm.group_count wkv.head_size shortconv.l_cache hyper_connection.count router_logit_softcapping`.split(/\s+/);
export const TOKENIZER_KEYS =
  `model pre token_type_count bos_token_id eos_token_id eot_token_id unknown_token_id padding_token_id mask_token_id
fim_pre_token_id add_bos_token add_eos_token add_space_prefix remove_extra_whitespaces precompiled_charsmap scores token_type merges`
    .split(/\s+/)
    .map((key) => `tokenizer.ggml.${key}`);
export const MMPROJ_KEYS =
  `embedding_length feed_forward_length block_count projection_dim attention.head_count attention.head_count_kv attention.head_dim
attention.layer_norm_epsilon feature_layer image_size image_min_pixels image_max_pixels preproc_min_tiles preproc_max_tiles
preproc_image_size patch_size image_mean image_std projector.scale_factor projector.query_side projector.window_side
projector.spatial_offsets spatial_merge_size mm_patch_merge_type image_grid_pinpoints n_wa_pattern wa_layer_indexes wa_pattern_mode
window_size sam.head_count sam.block_count sam.embedding_length expert_used_count projector_type`
    .split(/\s+/)
    .map((key) => `clip.vision.${key}`);

export const ARCHITECTURES =
  `llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bloom stablelm qwen qwen2 qwen2moe qwen2vl
qwen3 qwen3moe qwen3next qwen3vl qwen3vlmoe qwen35 qwen35moe phi2 phi3 phimoe plamo plamo2 plamo3 codeshell orion internlm2 minicpm minicpm3
gemma gemma2 gemma3 gemma3n gemma4 starcoder2 jamba falcon-h1 xverse command-r cohere2 dbrx olmo olmo2 olmoe openelm arctic deepseek deepseek2
deepseek4 chatglm glm4 glm4moe bitnet jais nemotron nemotron_h exaone exaone4 granite granitemoe granitehybrid chameleon plm bailingmoe
bailingmoe2 dots1 arcee afmoe ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense smollm3 gpt-oss lfm2 lfm2moe smallthinker seed_oss grovemoe apertus
minimax-m2 cogvlm pangu-embedded mistral3 paddleocr mimo2 step35 kimi-linear bert t5 mamba rwkv7 clip nothing`.split(
    /\s+/,
  );
export const PROJECTORS =
  `mlp ldp ldpv2 resampler adapter gemma3 gemma3nv gemma3na gemma4v idefics3 pixtral internvl llama4 lfm2 kimivl qwen2vl_merger
qwen2.5vl_merger qwen3vl_merger paddleocr lightonocr cogvlm janus_pro glm4v phi4 youtuvl deepseekocr minicpmv4_6 ultravox qwen2a voxtral
step3vl dots_ocr nemotron_v2_vl fuyu idefics2 nothing`.split(/\s+/);

export const MODEL_TENSORS =
  `output.weight output.bias output.scale output_norm.bias rope_freqs.weight position_embd.weight token_types.weight token_embd_norm.weight
rope_factors_long.weight rope_factors_short.weight per_layer_token_embd.weight cls.weight`
    .split(/\s+/)
    .concat(
      `attn_norm.bias attn_norm_2.weight attn_q.bias attn_k.bias attn_v.bias attn_qkv.weight attn_qkv.bias attn_output.bias attn_q.scale attn_k.scale
attn_v.scale attn_output.scale attn_q.input_scale attn_q_norm.weight attn_k_norm.weight attn_q_norm.bias attn_sinks.weight attn_sub_norm.weight
attn_rot_embd.weight attn_gate.weight post_attention_norm.weight post_ffw_norm.weight layer_output_norm.weight layer_output_scale.weight
ffn_norm.bias ffn_gate.bias ffn_up.bias ffn_down.bias ffn_gate.scale ffn_up.scale ffn_down.scale ffn_gate_inp.weight ffn_gate_exps.weight
ffn_up_exps.weight ffn_down_exps.weight exp_probs_b.bias ssm_a ssm_d nextn.eh_proj.weight`
        .split(/\s+/)
        .map((name) => `blk.0.${name}`),
    );
export const MMPROJ_TENSORS =
  `v.class_embd v.pre_ln.weight v.pre_ln.bias v.post_ln.weight v.post_ln.bias v.patch_embd.bias v.patch_embd.weight.1
v.position_embd.weight v.norm_embd.weight mm.input_norm.weight mm.input_norm.bias mm.patch_merger.weight mm.patch_merger.bias mm.0.weight mm.1.weight
mm.1.bias mm.2.bias mm.3.weight mm.4.weight mm.model.fc.weight mm.model.fc.bias mm.input_projection.weight mm.soft_emb_norm.weight
v.image_newline v.view_seperator v.token_embd.img_break mm.post_norm.weight mm.pre_norm.weight v.std_bias v.std_scale
v.deepstack.0.norm.weight v.deepstack.0.fc1.weight`
    .split(/\s+/)
    .concat(
      `attn_q.bias attn_k.bias attn_v.bias attn_out.bias attn_qkv.weight attn_qkv.bias attn_q_norm.weight attn_k_norm.weight attn_sinks ln1.bias ln2.bias
ls1.weight ls2.weight out_scale.weight ffn_gate.weight ffn_gate.bias ffn_up.bias ffn_down.bias attn_post_norm.weight ffn_post_norm.weight`
        .split(/\s+/)
        .map((name) => `v.blk.0.${name}`),
    );

/** ggml's numbers of types that a tensor is given. */
export const TYPES = [0, 1, 2, 3, 8, 12, 14, 16, 20, 24, 25, 26, 27, 28, 30, 39, 40, 41];
