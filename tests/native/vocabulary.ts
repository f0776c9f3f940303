// Models of a few kilobytes whose only use is their vocabulary: every type of tokenizer that llama.cpp has.
import { writeFileSync } from 'node:fs';
import { type GgufField, layOutGguf, text, u32 } from '../../src/gguf/gguf-writer.js';

/** GGUF's types of tokens. */
export const NORMAL = 1;
export const UNKNOWN = 2;
export const CONTROL = 3;
export const USER_DEFINED = 4;
export const BYTE = 6;

export interface Vocabulary {
  /** As `tokenizer.ggml.model` names it. */
  model: 'llama' | 'gpt2' | 'bert' | 't5' | 'rwkv' | 'plamo2';
  /** Of byte-level BPE, as `tokenizer.ggml.pre` names it. */
  pre?: string;
  name?: string;
  tokens: readonly (readonly [text: string, type?: number, score?: number])[];
  merges?: readonly string[];
  bos?: number;
  /** Of a model that learned its positions, so many. */
  positions?: number;
  fields?: Record<string, GgufField>;
}

/** Writes a model with one block and random weights. */
export function writeVocabulary(
  path: string,
  { model, pre, name, tokens, merges, bos = 1, positions, fields }: Vocabulary,
): string {
  const [nEmbd, nFf] = [8, 16];
  const matrix = (part: string, shape: number[]) => ({ name: `blk.0.${part}.weight`, shape });
  const withBias = (name: string, shape: number[]) => [
    { name: `${name}.weight`, shape },
    { name: `${name}.bias`, shape: shape.slice(-1) },
  ];
  const block =
    positions === undefined
      ? [
          { name: 'output_norm.weight', shape: [nEmbd] },
          ...['attn_norm', 'ffn_norm'].map((part) => matrix(part, [nEmbd])),
          ...['q', 'k', 'v', 'output'].map((part) => matrix(`attn_${part}`, [nEmbd, nEmbd])),
          ...['gate', 'up'].map((part) => matrix(`ffn_${part}`, [nEmbd, nFf])),
          matrix('ffn_down', [nFf, nEmbd]),
        ]
      : [
          { name: 'position_embd.weight', shape: [nEmbd, positions] },
          ...['output_norm', 'blk.0.attn_norm', 'blk.0.ffn_norm'].flatMap((part) => withBias(part, [nEmbd])),
          ...withBias('blk.0.attn_qkv', [nEmbd, 3 * nEmbd]),
          ...withBias('blk.0.attn_output', [nEmbd, nEmbd]),
          ...withBias('blk.0.ffn_up', [nEmbd, nFf]),
          ...withBias('blk.0.ffn_down', [nFf, nEmbd]),
        ];
  const tensors = [{ name: 'token_embd.weight', shape: [nEmbd, tokens.length] }, ...block].map((tensor) => ({
    ...tensor,
    type: 0,
  }));
  const architecture = positions === undefined ? 'llama' : 'gpt2';
  const metadata: Record<string, GgufField> = {
    'general.architecture': text(architecture),
    'general.name': text(name ?? 'vocabulary'),
    [`${architecture}.block_count`]: u32(1),
    [`${architecture}.context_length`]: u32(positions ?? 64),
    [`${architecture}.embedding_length`]: u32(nEmbd),
    [`${architecture}.feed_forward_length`]: u32(nFf),
    [`${architecture}.attention.head_count`]: u32(2),
    [`${architecture}.attention.layer_norm_${positions === undefined ? 'rms_' : ''}epsilon`]: {
      type: 'f32',
      value: 1e-5,
    },
    'llama.rope.dimension_count': u32(4),
    'tokenizer.ggml.model': text(model),
    ...(pre === undefined ? {} : { 'tokenizer.ggml.pre': text(pre) }),
    'tokenizer.ggml.tokens': { type: 'string', list: tokens.map(([token]) => token) },
    'tokenizer.ggml.token_type': { type: 'i32', list: tokens.map(([, type]) => type ?? NORMAL) },
    'tokenizer.ggml.scores': { type: 'f32', list: tokens.map(([, , score]) => score ?? 0) },
    ...(merges === undefined ? {} : { 'tokenizer.ggml.merges': { type: 'string', list: merges } as const }),
    'tokenizer.ggml.bos_token_id': u32(bos),
    'tokenizer.ggml.eos_token_id': u32(bos),
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: false },
    ...fields,
  };
  const { header, places, size } = layOutGguf(metadata, tensors);
  const file = Buffer.alloc(size);
  file.set(header);
  let state = 1;
  for (const { offset, bytes } of places) {
    for (let at = 0; at < bytes; at += 4) {
      state = (state * 48271) % 0x7fffffff; // Lehmer's generator
      file.writeFloatLE(state / 0x7fffffff - 0.5, offset + at);
    }
  }
  writeFileSync(path, file);
  return path;
}

/** The characters that GPT-2 writes bytes as (openai/gpt-2, encoder.py). */
export function byteCharacters(): string[] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

/** All bytes as SentencePiece's byte tokens. */
export const BYTES = Array.from(
  { length: 256 },
  (_, byte) => [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, BYTE] as const,
);

/** SentencePiece; merges would make control tokens of `<s>` and `</s>`, were they allowed. */
export const SPM: Vocabulary = {
  model: 'llama',
  tokens: [
    ['<unk>', UNKNOWN],
    ['<s>', CONTROL],
    ['</s>', CONTROL],
    ...BYTES,
    ['<tag>', USER_DEFINED],
    ...['<s', '</', 's>', 'Pe', 'Peru', 'ru', '▁Pe', 'Q:', '▁Q', '▁a', 're', 'ed', 'red', '>r', '▁▁'].map(
      (piece, i) => [piece, NORMAL, -i - 1] as const,
    ),
    ...Array.from('▁<>/sPeruQ:adtgin0é', (piece, i) => [piece, NORMAL, -100 - i] as const),
  ],
};

/** Byte-level BPE whose merges would make control tokens too. */
export const BPE: Vocabulary = {
  model: 'gpt2',
  pre: 'gpt-2',
  bos: 0,
  tokens: [
    ['<s>', CONTROL],
    ['<|im_end|>', CONTROL],
    ['<|end_user|>', USER_DEFINED], // as llama.cpp has tokens of gpt-oss
    ['  ', USER_DEFINED],
    ['<image>', CONTROL],
    ...byteCharacters().map((character) => [character] as const),
    ['<s'],
    ['Pe'],
    ['ru'],
    ['Peru'],
    ['Ġa'],
  ],
  merges: ['< s', '<s >', 'P e', 'r u', 'Pe ru', 'Ġ a'],
};

export const UNIGRAM: Vocabulary = {
  model: 't5',
  bos: 2,
  tokens: [
    ['<pad>', CONTROL],
    ['</s>', CONTROL],
    ['<unk>', UNKNOWN],
    ...['▁', '▁Pe', 'Peru', 'ru', 'Q:', '<', '/s', '>', 'red'].map((piece, i) => [piece, NORMAL, -1 - i / 8] as const),
    ...Array.from('/sPeruQ:adtgin', (piece, i) => [piece, NORMAL, -5 - i / 8] as const),
  ],
  fields: { 'tokenizer.ggml.add_space_prefix': { type: 'bool', value: true } },
};

export const RWKV: Vocabulary = {
  model: 'rwkv',
  bos: 0,
  tokens: [
    ['<s>', CONTROL],
    ...Array.from({ length: 256 }, (_, byte) => [`\\x${byte.toString(16).padStart(2, '0')}`] as const),
    ['Peru'],
    ['<s'],
    ['Q:'],
  ],
};

export const WORDPIECE: Vocabulary = {
  model: 'bert',
  bos: 1,
  tokens: [
    ['[UNK]', UNKNOWN],
    ['[CLS]', CONTROL],
    ['[SEP]', CONTROL],
    ...['▁peru', '▁q', '▁:', '▁[', '▁]', '▁cls', '▁red', 's'].map((piece) => [piece] as const),
  ],
  fields: {
    'tokenizer.ggml.unknown_token_id': u32(0),
    'tokenizer.ggml.seperator_token_id': u32(2),
    'tokenizer.ggml.cls_token_id': u32(1),
  },
};

export const PLAMO: Vocabulary = {
  model: 'plamo2',
  tokens: [
    ['<unk>', UNKNOWN],
    ['<s>', CONTROL],
    ['</s>', CONTROL],
    ['<pad>', CONTROL],
    ...BYTES,
    ...['Peru', 'ru', 'Q:', '<', '/s', '>', 'red', ' a'].map((piece, i) => [piece, NORMAL, -1 - i / 8] as const),
    ...Array.from('s/PeruQ:adtgin ', (piece, i) => [piece, NORMAL, -5 - i / 8] as const),
  ],
};
