/** Keys of GGUF metadata that xpatch defines: written by its converter, read by its runtime. */
export const OWN_KEYS = {
  /** u32 of an mmproj: the tokens around every picture; pictures next to each other share one where both are the same. */
  imageBegin: 'xpatch.image.begin_token',
  imageEnd: 'xpatch.image.end_token',
  /** u32 of an Idefics2 mmproj: bounds of the preprocessed picture's edges, pixels. */
  idefics2ShortestEdge: 'xpatch.idefics2.shortest_edge',
  idefics2LongestEdge: 'xpatch.idefics2.longest_edge',
  /** u32 of a Fuyu mmproj: bounds of the preprocessed picture, pixels. */
  fuyuMaxHeight: 'xpatch.fuyu.max_height',
  fuyuMaxWidth: 'xpatch.fuyu.max_width',
  /** Text of an mmproj: how prompts with pictures are built; `mantis`. */
  promptFormat: 'xpatch.prompt.format',
  /** Lists of f32 of a text model, n_layer * head_dim values, and an f32: LayerNorm of queries and keys (Persimmon). */
  qNormWeight: 'xpatch.qk_norm.q_weight',
  qNormBias: 'xpatch.qk_norm.q_bias',
  kNormWeight: 'xpatch.qk_norm.k_weight',
  kNormBias: 'xpatch.qk_norm.k_bias',
  qkNormEpsilon: 'xpatch.qk_norm.epsilon',
  /** Text of a text model: `huggingface` where the tokenizer is tokenizer.json, which then is the text of the second key. */
  tokenizer: 'xpatch.tokenizer',
  tokenizerJson: 'tokenizer.huggingface.json',
} as const;
