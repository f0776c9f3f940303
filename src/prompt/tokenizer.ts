import { Tokenizer } from '@huggingface/tokenizers';
import type { GgufHeader } from '../gguf/gguf.js';
import { OWN_KEYS } from '../gguf/own-keys.js';
import { XpatchError } from '../util/errors.js';
import { Unigram, type UnigramConfig } from './unigram.js';

/** What was compared with the Python library. Its other parts are close to that one, which is not enough for token ids. */
const NORMALIZERS = ['Prepend', 'Replace'];
const MODELS = ['Unigram', 'BPE'];

interface Part {
  type: string;
  normalizers?: Part[];
  pattern?: { String?: string };
  split?: boolean;
}

interface TokenizerJson {
  normalizer: Part | null;
  pre_tokenizer: Part | null;
  model: { type?: string; vocab: unknown; merges?: unknown };
  added_tokens: { content: string; id: number }[];
}

/**
 * The tokenizer of a GGUF that carries its `tokenizer.json`: from text to ids. Text of ids comes from the vocabulary of the
 * GGUF, as for every other model.
 */
export class JsonTokenizer {
  private constructor(
    private readonly tokenizer: Tokenizer,
    private readonly added: ReadonlyMap<string, number>,
  ) {}

  /**
   * Undefined for a file whose texts llama.cpp tokenises.
   *
   * @throws XpatchError GGUF_INVALID for a damaged tokenizer, TOKENIZER_UNSUPPORTED for one of a kind that is not exact here.
   */
  static of({ metadata }: GgufHeader, path: string): JsonTokenizer | undefined {
    const kind = metadata.get(OWN_KEYS.tokenizer);
    if (kind === undefined) return undefined;
    if (kind !== 'huggingface') {
      throw new XpatchError(
        'TOKENIZER_UNSUPPORTED',
        `'${path}' has a tokenizer of the kind '${kind}'; only 'huggingface' is known.`,
      );
    }
    const invalid = (why: string, cause?: unknown) =>
      new XpatchError('GGUF_INVALID', `'${path}' is not a usable model: its tokenizer.json ${why}.`, { cause });
    const text = metadata.get(OWN_KEYS.tokenizerJson);
    if (typeof text !== 'string') throw invalid('is missing');
    let json: TokenizerJson;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw invalid('is not JSON', error);
    }
    const tokens = metadata.get('tokenizer.ggml.tokens');
    checkShape(json, typeof tokens === 'object' ? tokens.length : 0, invalid);
    const unsupported = findUnsupported(json);
    if (unsupported) {
      const wayOut = 'Use a GGUF of this model made by llama.cpp, if there is one.';
      throw new XpatchError(
        'TOKENIZER_UNSUPPORTED',
        `'${path}' tokenises with ${unsupported}, which xpatch cannot do exactly. ${wayOut}`,
      );
    }
    try {
      return new JsonTokenizer(build(json), new Map(json.added_tokens.map(({ content, id }) => [content, id])));
    } catch (error) {
      throw invalid(`cannot be used: ${(error as Error).message}`, error);
    }
  }

  /**
   * Ids of one text, without BOS.
   *
   * @param runs Its parts in turn: as written, literal, as written, ... In a literal no added token is recognised.
   */
  encode(runs: readonly string[]): Int32Array {
    const text = runs.join('');
    if (!text) return new Int32Array(0);
    const { cut, masked } = mask(runs, text, [...this.added.keys()]);
    if (masked === text) return this.ids(text);
    const { model } = this.tokenizer;
    if (!model) return new Int32Array(0);
    const spell = (texts: string[]) =>
      model(texts.map((piece) => piece.replaceAll(cut, '')))
        // Added tokens are pieces of the vocabulary too.
        .flatMap((piece: string) => (this.added.has(piece) ? model(Array.from(piece)) : [piece]));
    const { tokens_to_ids, unk_token_id } = model;
    this.tokenizer.model = Object.assign(spell, { tokens_to_ids, unk_token_id }) as never;
    try {
      return this.ids(masked);
    } finally {
      this.tokenizer.model = model;
    }
  }

  private ids(text: string): Int32Array {
    return Int32Array.from(this.tokenizer.encode(text, { add_special_tokens: false }).ids);
  }
}

/** The text with a character, which it does not hold, in every added token that reaches into a literal. */
function mask(runs: readonly string[], text: string, added: readonly string[]): { cut: string; masked: string } {
  const literal = new Uint8Array(text.length);
  let from = 0;
  for (const [i, run] of runs.entries()) {
    if (i % 2 === 1) literal.fill(1, from, from + run.length);
    from += run.length;
  }
  const cuts = new Set<number>();
  for (const token of added) {
    for (let at = text.indexOf(token); at >= 0; at = text.indexOf(token, at + 1)) {
      if (literal.subarray(at, at + token.length).includes(1)) cuts.add(at + 1);
    }
  }
  let code = 0xfdd0; // the first of Unicode's noncharacters
  while (text.includes(String.fromCharCode(code))) code++;
  const cut = String.fromCharCode(code);
  const places = [0, ...[...cuts].sort((a, b) => a - b), text.length];
  return {
    cut,
    masked: places
      .slice(1)
      .map((to, i) => text.slice(places[i], to))
      .join(cut),
  };
}

/** What the library would fail on later, or answer with ids that the model does not have. */
function checkShape(json: TokenizerJson, nVocab: number, invalid: (why: string) => XpatchError): void {
  const { model, added_tokens: added } = json ?? {};
  if (typeof model !== 'object' || model === null || !Array.isArray(added))
    throw invalid('has no model or no added tokens');
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < nVocab;
  if (!added.every((token) => typeof token?.content === 'string' && token.content && isId(token.id))) {
    throw invalid(`has an added token without text or outside the vocabulary of ${nVocab}`);
  }
  if (model.type === 'Unigram') {
    const { vocab, unk_id: unknown } = model as Partial<UnigramConfig>;
    const isPiece = (entry: unknown) =>
      Array.isArray(entry) && typeof entry[0] === 'string' && entry[0] !== '' && Number.isFinite(entry[1]);
    if (!Array.isArray(vocab) || vocab.length === 0 || vocab.length > nVocab || !vocab.every(isPiece)) {
      throw invalid(`has no list of at most ${nVocab} pieces with scores`);
    }
    if (!isId(unknown) || (unknown as number) >= vocab.length) throw invalid('has no token for unknown text');
  } else if (model.type === 'BPE') {
    const { vocab, merges } = model;
    if (typeof vocab !== 'object' || vocab === null || !Object.values(vocab).every(isId) || !Array.isArray(merges)) {
      throw invalid(`has no merges, or a token outside the vocabulary of ${nVocab}`);
    }
  }
}

/** The first part that was not compared with the Python library. */
function findUnsupported({ normalizer, pre_tokenizer: pre, model }: TokenizerJson): string | undefined {
  if (!MODELS.includes(String(model.type))) return `a model of the type '${model.type}'`;
  const normalizers = normalizer
    ? normalizer.type === 'Sequence'
      ? (normalizer.normalizers ?? [])
      : [normalizer]
    : [];
  for (const part of normalizers) {
    if (!NORMALIZERS.includes(part.type)) return `a normalizer of the type '${part.type}'`;
    if (part.type === 'Replace' && typeof part.pattern?.String !== 'string')
      return 'a normalizer with a regular expression';
  }
  // Without `split` the library cuts at spaces nowhere.
  if (pre && pre.type !== 'Metaspace') return `a pre-tokenizer of the type '${pre.type}'`;
  if (pre && pre.split !== false) return `a pre-tokenizer that splits at spaces`;
  return undefined;
}

function build(json: TokenizerJson): Tokenizer {
  // The rest of the file (its template, its decoder) is not used.
  const parts = { ...json, post_processor: null, decoder: null };
  if (json.model.type !== 'Unigram') return new Tokenizer(parts, {});
  const config = json.model as UnigramConfig;
  const { vocab, unk_id: unknown } = config;
  const stub = { ...config, vocab: [vocab[unknown]], unk_id: 0 };
  const tokenizer = new Tokenizer({ ...parts, model: stub }, {});
  const unigram = new Unigram(config);
  const model = (texts: string[]) => unigram.encode(texts);
  tokenizer.model = Object.assign(model, { tokens_to_ids: unigram.ids, unk_token_id: unigram.unknown }) as never;
  return tokenizer;
}
