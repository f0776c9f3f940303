/** Under the least score of a piece, as in SentencePiece: what no piece covers. */
const UNKNOWN_PENALTY = 10;

export interface UnigramConfig {
  type: 'Unigram';
  vocab: [piece: string, score: number][];
  unk_id: number;
  byte_fallback?: boolean;
}

/**
 * SentencePiece's Unigram as Hugging Face's tokenizers has it: of all ways to cut a text into pieces the one with the highest
 * sum of scores (Kudo 2018, arXiv 1804.10959), and a character that no piece covers as its bytes. In place of the kept
 * library's own, which knows no bytes and takes seconds and 300 MB to index the 262,144 pieces of Fuyu.
 */
export class Unigram {
  readonly ids: ReadonlyMap<string, number>;
  /** The token of what nothing covers. */
  readonly unknown: number;
  private readonly scores: Float64Array;
  private readonly unknownScore: number;
  private readonly longest: number;
  private readonly hasBytes: boolean;

  constructor({ vocab, unk_id: unknown, byte_fallback: bytes }: UnigramConfig) {
    this.ids = new Map(vocab.map(([piece], id) => [piece, id]));
    this.unknown = unknown;
    this.scores = Float64Array.from(vocab, ([, score]) => score);
    this.unknownScore = this.scores.reduce((a, b) => Math.min(a, b), Infinity) - UNKNOWN_PENALTY;
    this.longest = vocab.reduce((n, [piece]) => Math.max(n, piece.length), 1);
    this.hasBytes =
      bytes === true && Array.from({ length: 256 }, (_, byte) => byte).every((b) => this.ids.has(bytePiece(b)));
  }

  encode(texts: readonly string[]): string[] {
    return texts.flatMap((text) => this.cut(text).flatMap((piece) => this.spell(piece)));
  }

  /** The best pieces; neighbouring characters that none covers come as one. */
  private cut(text: string): string[] {
    // By end: score of the best way there, and where its last piece begins.
    const best = new Float64Array(text.length + 1).fill(-Infinity);
    const from = new Int32Array(text.length + 1).fill(-1);
    const unknown = new Uint8Array(text.length + 1);
    best[0] = 0;
    for (let begin = 0; begin < text.length; ) {
      const width = (text.codePointAt(begin) as number) > 0xffff ? 2 : 1;
      const sum = best[begin] as number;
      let covered = false;
      for (let end = begin + width; end <= text.length && end - begin <= this.longest; end++) {
        const id = this.ids.get(text.slice(begin, end));
        if (id === undefined) continue;
        covered ||= end === begin + width;
        const score = sum + (this.scores[id] as number);
        if (score > (best[end] as number)) {
          best[end] = score;
          from[end] = begin;
          unknown[end] = id === this.unknown ? 1 : 0;
        }
      }
      const end = begin + width;
      if (!covered && sum + this.unknownScore > (best[end] as number)) {
        best[end] = sum + this.unknownScore;
        from[end] = begin;
        unknown[end] = 1;
      }
      begin = end;
    }
    const pieces: string[] = [];
    for (let end = text.length; end > 0; ) {
      const stop = end;
      do end = from[end] as number;
      while (unknown[stop] && end > 0 && unknown[end]);
      pieces.push(text.slice(end, stop));
    }
    return pieces.reverse();
  }

  private spell(piece: string): string[] {
    if (!this.hasBytes || this.ids.has(piece)) return [piece];
    return Array.from(new TextEncoder().encode(piece), bytePiece);
  }
}

const bytePiece = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
