import type { GgufField } from '../gguf/gguf-writer.js';
import { isRecord } from '../util/json.js';
import type { Checkpoint } from './checkpoint.js';
import { isStorable } from './config.js';
import { PIECE_TYPE, type Piece, parseSentencePiece } from './sentencepiece.js';

/** The tokens of a model, one for every row of its embeddings. */
export interface Vocabulary {
  readonly pieces: readonly Piece[];
  /** Whether a text becomes the likeliest pieces; those of other kinds are joined in the order of their scores. */
  readonly isUnigram: boolean;
  /** tokenizer.json, parsed. */
  readonly tokenizerJson?: string;
}

/** Scores as llama.cpp's converter sets them, of added tokens and of ids without a token. */
const ADDED_SCORE = -1000;
const UNUSED_SCORE = -10000;

interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

/**
 * Reads the vocabulary from `tokenizer.model` (SentencePiece), else from `tokenizer.json`, with the tokens that
 * `added_tokens.json`, `tokenizer_config.json` and `tokenizer.json` add. Ids without a token become unused `[PADn]`.
 *
 * @param size rows of the embeddings
 * @throws {XpatchError} CHECKPOINT_INVALID
 */
export async function readVocabulary(checkpoint: Checkpoint, size: number): Promise<Vocabulary> {
  requireRows(checkpoint, size);
  const pieces: Piece[] = Array.from({ length: size }, (_, id) => ({
    text: `[PAD${id}]`,
    score: UNUSED_SCORE,
    type: PIECE_TYPE.unused,
  }));
  const put = (id: number, piece: Piece, where: string) => {
    if (!Number.isSafeInteger(id) || id < 0) throw checkpoint.invalid(`${where} has a token with the id ${id}`);
    // Some tokenizers list more than the model has rows for: those can never come out of it.
    if (id < size) pieces[id] = piece;
  };

  const tokenizerJson = await checkpoint.text('tokenizer.json');
  const model = await checkpoint.bytes('tokenizer.model');
  const json = tokenizerJson === undefined ? undefined : ((await checkpoint.json('tokenizer.json')) as TokenizerJson);
  let isUnigram = json?.model?.type === 'Unigram';
  if (model) {
    try {
      const parsed = parseSentencePiece(model);
      isUnigram = parsed.isUnigram;
      for (const [id, piece] of parsed.pieces.entries()) put(id, piece, 'tokenizer.model');
    } catch (cause) {
      throw checkpoint.invalid(`tokenizer.model is not a SentencePiece model (${(cause as Error).message})`);
    }
  } else if (json) {
    for (const [id, piece] of jsonPieces(json, checkpoint)) put(id, piece, 'tokenizer.json');
  } else {
    throw checkpoint.invalid('it has neither tokenizer.model nor tokenizer.json; download one of them');
  }

  for (const [where, tokens] of await addedTokens(checkpoint, json)) {
    for (const { id, content, special } of tokens) {
      const known = pieces[id];
      // tokenizer.json repeats what the model has, such as <s>: there its own type is the better one.
      if (where === 'tokenizer.json' && known?.text === content) {
        if (special && known.type === PIECE_TYPE.normal) known.type = PIECE_TYPE.control;
        continue;
      }
      const type = special || looksSpecial(content) ? PIECE_TYPE.control : PIECE_TYPE.userDefined;
      // llama.cpp compares user defined tokens with the text as it was typed.
      const text = type === PIECE_TYPE.control ? content : content.replaceAll('▁', ' ');
      put(id, { text, score: ADDED_SCORE, type }, where);
    }
  }
  const places = new Map<string, number>();
  for (const [id, { text }] of pieces.entries()) {
    const other = places.get(text);
    if (other !== undefined) {
      throw checkpoint.invalid(`tokens ${other} and ${id} are both ${JSON.stringify(text)}, which llama.cpp refuses`);
    }
    places.set(text, id);
  }
  return { pieces, isUnigram, ...(tokenizerJson !== undefined && { tokenizerJson }) };
}

/** Before a list of that length is made: config.json may say anything. */
function requireRows(checkpoint: Checkpoint, size: number): void {
  const [name, tensor] = [...checkpoint.tensors].find(([key]) => /(^|\.)embed_tokens\.weight$/.test(key)) ?? [];
  const rows = tensor?.info.shape[0];
  if (rows === undefined) throw checkpoint.invalid("it has no tensor 'embed_tokens.weight'");
  if (rows !== size) throw checkpoint.invalid(`'${name}' has ${rows} rows, but by config.json it should have ${size}`);
}

/** The keys that llama.cpp reads a SentencePiece vocabulary from. */
export function vocabularyFields({ pieces }: Vocabulary): Record<string, GgufField> {
  return {
    'tokenizer.ggml.model': { type: 'string', value: 'llama' },
    'tokenizer.ggml.pre': { type: 'string', value: 'default' },
    'tokenizer.ggml.tokens': { type: 'string', list: pieces.map(({ text }) => text) },
    'tokenizer.ggml.scores': { type: 'f32', list: pieces.map(({ score }) => score) },
    'tokenizer.ggml.token_type': { type: 'i32', list: pieces.map(({ type }) => type) },
  };
}

/** The id of a token, undefined where the vocabulary lacks it. */
export function tokenId({ pieces }: Vocabulary, text: string): number | undefined {
  const id = pieces.findIndex((piece) => piece.text === text);
  return id < 0 ? undefined : id;
}

export interface TokenizerJson {
  model?: {
    type?: string;
    vocab?: unknown;
    merges?: unknown;
    unk_token?: unknown;
    unk_id?: unknown;
    byte_fallback?: unknown;
  };
  added_tokens?: unknown;
  post_processor?: unknown;
}

const BYTE = /^<0x[0-9A-Fa-f]{2}>$/;

/**
 * The pieces of tokenizer.json, as those of the SentencePiece model that it was made from. Where that was a BPE, its scores
 * are lost, but not their order: llama.cpp joins the pair of the best score first, tokenizer.json that of the first merge.
 */
function* jsonPieces({ model }: TokenizerJson, checkpoint: Checkpoint): Generator<[number, Piece]> {
  if (!isRecord(model)) throw checkpoint.invalid('its tokenizer.json has no model');
  const type = (text: string, isUnknown: boolean) =>
    isUnknown ? PIECE_TYPE.unknown : BYTE.test(text) ? PIECE_TYPE.byte : PIECE_TYPE.normal;
  if (model.type === 'Unigram' && Array.isArray(model.vocab)) {
    for (const [id, entry] of model.vocab.entries()) {
      const [text, score] = Array.isArray(entry) ? (entry as unknown[]) : [];
      if (typeof text !== 'string' || !isStorable(score)) {
        throw checkpoint.invalid(`tokenizer.json has no text and score for token ${id}`);
      }
      yield [id, { text, score, type: type(text, id === model.unk_id) }];
    }
    return;
  }
  if (model.type !== 'BPE' || model.byte_fallback !== true || !isRecord(model.vocab)) {
    throw checkpoint.invalid(
      `its tokenizer.json holds a ${model.type ?? 'model without type'} without byte fallback; SentencePiece's BPE and Unigram can ` +
        "be converted, others by llama.cpp's convert_hf_to_gguf.py",
    );
  }
  const scores = mergeScores(model.merges, checkpoint);
  for (const [text, id] of Object.entries(model.vocab)) {
    yield [id as number, { text, score: scores.get(text) ?? 0, type: type(text, text === model.unk_token) }];
  }
}

function mergeScores(merges: unknown, checkpoint: Checkpoint): Map<string, number> {
  if (!Array.isArray(merges)) throw checkpoint.invalid('its tokenizer.json has no list of merges');
  const scores = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!Array.isArray(parts) || parts.length !== 2 || !parts.every((part) => typeof part === 'string')) {
      throw checkpoint.invalid(`merge ${rank} of its tokenizer.json is not a pair of texts`);
    }
    const joined = parts.join('');
    if (!scores.has(joined)) scores.set(joined, -rank);
  }
  return scores;
}

/** Later files have the last word, except that tokenizer.json only fills what is still open. */
async function addedTokens(checkpoint: Checkpoint, json: TokenizerJson | undefined): Promise<[string, AddedToken[]][]> {
  const plain = (await checkpoint.json('added_tokens.json')) ?? {};
  const config = (await checkpoint.json('tokenizer_config.json')) ?? {};
  const decoder = Object.entries((config.added_tokens_decoder ?? {}) as Record<string, unknown>);
  return [
    ['tokenizer.json', checkTokens(checkpoint, 'tokenizer.json', json?.added_tokens ?? [])],
    [
      'added_tokens.json',
      checkTokens(
        checkpoint,
        'added_tokens.json',
        Object.entries(plain).map(([content, id]) => ({ content, id })),
      ),
    ],
    [
      'tokenizer_config.json',
      checkTokens(
        checkpoint,
        'tokenizer_config.json',
        decoder.map(([id, token]) => ({ ...(token as object), id: Number(id) })),
      ),
    ],
  ];
}

function checkTokens(checkpoint: Checkpoint, where: string, tokens: unknown): AddedToken[] {
  if (!Array.isArray(tokens)) throw checkpoint.invalid(`the added tokens of ${where} are not a list`);
  return tokens.map((token: unknown) => {
    const { id, content, special } = (token ?? {}) as Record<string, unknown>;
    if (typeof content !== 'string' || content === '' || !Number.isSafeInteger(id) || (id as number) < 0) {
      throw checkpoint.invalid(
        `${where} has an added token without text or id: ${JSON.stringify(token)?.slice(0, 80)}`,
      );
    }
    return { id: id as number, content, special: special === true };
  });
}

/** Tokens that some tokenizers forget to mark as special; the patterns are those of llama.cpp's converter. */
function looksSpecial(text: string): boolean {
  return (
    ['<pad>', '<mask>', '<2mass>', '[@BOS@]'].includes(text) ||
    /^<\|.*\|>$/su.test(text) ||
    /^<｜.*｜>$/su.test(text) ||
    /^<unused.*>$/su.test(text)
  );
}
