/** One piece of a SentencePiece model. */
export interface Piece {
  text: string;
  score: number;
  /** SentencePiece's type, which is llama.cpp's too: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. */
  type: number;
}

export const PIECE_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** trainer_spec.model_type; the format's default too. */
const UNIGRAM = 1;

/**
 * The pieces of a `tokenizer.model`, a protocol buffer: message ModelProto has them as field 1, each with its text (1),
 * score (2) and type (3), and as field 2 how it was trained, with the kind of model (3).
 * Format: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
 *
 * @throws {Error} with what is wrong
 */
export function parseSentencePiece(bytes: Uint8Array): { pieces: Piece[]; isUnigram: boolean } {
  const pieces: Piece[] = [];
  let kind = UNIGRAM;
  for (const { field, value } of fields(bytes)) {
    if (!(value instanceof Uint8Array)) continue;
    if (field === 2) {
      for (const part of fields(value)) if (part.field === 3 && typeof part.value === 'number') kind = part.value;
    }
    if (field !== 1) continue;
    const piece: Piece = { text: '', score: 0, type: PIECE_TYPE.normal };
    for (const part of fields(value)) {
      if (part.field === 1 && part.value instanceof Uint8Array)
        piece.text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(part.value);
      else if (part.field === 2 && part.bits !== undefined) piece.score = part.bits;
      else if (part.field === 3 && typeof part.value === 'number') piece.type = part.value;
    }
    if (piece.type < PIECE_TYPE.normal || piece.type > PIECE_TYPE.byte)
      throw new Error(`type ${piece.type} of a piece`);
    if (!Number.isFinite(piece.score)) throw new Error(`score ${piece.score} of a piece`);
    pieces.push(piece);
  }
  if (pieces.length === 0) throw new Error('no pieces in it');
  return { pieces, isUnigram: kind === UNIGRAM };
}

interface Field {
  field: number;
  /** A number (varint) or what is of a length; undefined for fixed sizes. */
  value?: number | Uint8Array;
  /** A fixed 32-bit value as float. */
  bits?: number;
}

function* fields(bytes: Uint8Array): Generator<Field> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const need = (n: number): number => {
    if (at + n > bytes.length) throw new Error('it ends inside a field');
    at += n;
    return at - n;
  };
  const varint = (): number => {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = view.getUint8(need(1));
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw new Error('a number without end');
  };
  while (at < bytes.length) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield { field, value: varint() };
        break;
      case 1:
        need(8);
        break;
      case 2: {
        const length = varint();
        const from = need(length);
        yield { field, value: bytes.subarray(from, from + length) };
        break;
      }
      case 5:
        yield { field, bits: view.getFloat32(need(4), true) };
        break;
      default:
        throw new Error(`wire type ${tag % 8}`);
    }
  }
}
