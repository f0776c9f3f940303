import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { type PromptRecord, recordPrompt } from './prompt-record.js';
import { textPositions } from './text-positions.js';
import type {
  PatchGrid,
  PicturePositions,
  Place,
  PositionRange,
  PositionRef,
  PositionSelection,
  PromptPart,
  RgbImage,
} from './types.js';

/** A run of tokens, or a picture as ready rows of embeddings from some encoder. */
export type Segment =
  | { kind: 'tokens'; tokens: Int32Array }
  | {
      kind: 'image';
      /** Identifies picture, encoder and chunk: equal keys mean equal embeddings. */
      key: string;
      /** nRows x n_embd_inp. */
      embeddings: Float32Array;
      nRows: number;
      /** By how much the position counter advances. */
      nPositions: number;
      /** Rows see each other in both directions, so they must be decoded in one batch. */
      nonCausal: boolean;
      /** M-RoPE only: t, y, x, z of every row relative to the first, dimension by dimension; empty otherwise. */
      positions: Int32Array;
      /** The picture after the encoder's own preprocessing. */
      seen: RgbImage;
      /** Where in `seen` the rows are. */
      grid: PatchGrid;
      /** Which picture of its prompt it belongs to, from 1; set when a prompt is built. */
      number?: number;
    };

/** A picture of a prompt as the model saw it: after the encoder's own scaling, padding or cropping. */
export interface PromptPicture {
  /** Which one, from 1; the tiles of a picture have the same. */
  number: number;
  /** Position of its first row. */
  first: number;
  nRows: number;
  seen: RgbImage;
  /** For each row its rectangle of `seen`, undefined for a separator row; or why the rows have none. See `patchRectangle`. */
  grid: PatchGrid;
}

/**
 * A tokenised prompt with its pictures expanded: what a pass reads.
 * Positions count tokens and picture rows alike, from 0 to `length - 1`.
 *
 * @example
 * ```ts
 * const prompt = await model.prompt(['Q:Peru', mark('country'), '\nA:']);
 * prompt.length;                  // positions: tokens and rows of pictures
 * prompt.position('country');     // that of the token which ends at the mark
 * ```
 */
export class Prompt {
  readonly length: number;
  /** Token id at each position, -1 for a row of a picture. */
  readonly tokens: Int32Array;
  /** In the order of the prompt. A picture that the model reads in tiles has an entry for each, and one for the overview. */
  readonly pictures: readonly PromptPicture[];

  constructor(
    readonly segments: readonly Segment[],
    /** Position of each mark. */
    readonly marks: Readonly<Record<string, number>>,
    /** What the prompt was made of. */
    readonly parts: readonly PromptPart[],
    /** Bytes of a token's text, by which a text is found. */
    private readonly bytesOf: (token: number) => Uint8Array = () => new Uint8Array(),
  ) {
    this.length = segments.reduce((n, s) => n + (s.kind === 'tokens' ? s.tokens.length : s.nRows), 0);
    if (this.length === 0) {
      throw new XpatchError('PROMPT_EMPTY', 'The prompt has no tokens. Give it some text, token ids or a picture.');
    }
    this.tokens = new Int32Array(this.length).fill(-1);
    const pictures: PromptPicture[] = [];
    let at = 0;
    for (const segment of segments) {
      if (segment.kind === 'tokens') {
        this.tokens.set(segment.tokens, at);
        at += segment.tokens.length;
      } else {
        const { nRows, seen, grid, number = pictures.length + 1 } = segment;
        pictures.push({ number, first: at, nRows, seen, grid });
        at += nRows;
      }
    }
    this.pictures = pictures;
  }

  /**
   * The index that a position reference means in this prompt.
   *
   * @throws XpatchError POSITION_OUT_OF_RANGE for an index outside the prompt or a mark that it does not have.
   */
  position(ref: PositionRef): number {
    if (typeof ref === 'string') {
      if (ref === 'last') return this.length - 1;
      const marked = Object.hasOwn(this.marks, ref) ? this.marks[ref] : undefined;
      if (marked === undefined) {
        const known = Object.keys(this.marks).join(', ') || 'none';
        const message = `The prompt has no mark '${ref}' (its marks: ${known}). Without a mark there are 'last' and, for several, 'all'.`;
        throw new XpatchError('POSITION_OUT_OF_RANGE', message);
      }
      return marked;
    }
    const index = typeof ref === 'number' && ref < 0 ? this.length + ref : ref;
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new XpatchError(
        'POSITION_OUT_OF_RANGE',
        `Position ${String(ref)} is outside the prompt, which has ${counted(this.length, 'position')} (0 to ${this.length - 1}, or -1 to -${this.length}).`,
      );
    }
    return index;
  }

  /** This prompt with tokens, or with what another one holds, appended. Marks of the other one are left out. */
  append(more: ArrayLike<number> | Prompt): Prompt {
    if (more.length === 0) return this;
    if (more instanceof Prompt) {
      const before = this.pictures.at(-1)?.number ?? 0;
      const added = more.segments.map((one) =>
        one.kind === 'tokens' ? one : { ...one, number: before + (one.number ?? 1) },
      );
      const segments = [...this.segments, ...added];
      return new Prompt(segments, this.marks, [...this.parts, ...more.parts], this.bytesOf);
    }
    const tokens = Int32Array.from(more);
    const segments: Segment[] = [...this.segments, { kind: 'tokens', tokens }];
    return new Prompt(segments, this.marks, [...this.parts, { tokens }], this.bytesOf);
  }

  /**
   * What the prompt was, for results and files, so that it can be built again.
   *
   * @param names what pictures are recorded as, by path, such as `Task.pictures`. Defaults to the path as given, of a shipped
   *   picture from the package's folder
   */
  record(names?: ReadonlyMap<string, string>): PromptRecord {
    return recordPrompt(this.parts, this.tokens, names);
  }

  /**
   * The indices that a selection means, in its order.
   *
   * @throws XpatchError POSITION_OUT_OF_RANGE, MARK_AMBIGUOUS where a token holds more than a text that is named, and
   *   INVALID_ARGUMENT for none, for a range that ends before it begins, or for a position that is named twice.
   */
  positions(selection: PositionSelection): number[] {
    if (selection === 'all') return Array.from({ length: this.length }, (_, i) => i);
    const list = [selection].flat() as readonly Place[];
    const positions = list.flatMap((item) => {
      if (typeof item !== 'object' || item === null) return [this.position(item)];
      if ('text' in item) return textPositions(this.pieces(), item);
      return 'picture' in item ? this.rowsOf(item) : this.range(item);
    });
    if (positions.length === 0)
      throw new XpatchError('INVALID_ARGUMENT', 'No positions were given. Name at least one.');
    if (new Set(positions).size !== positions.length) {
      throw new XpatchError('INVALID_ARGUMENT', `Positions repeat: ${positions.join(', ')}. Name each once.`);
    }
    return positions;
  }

  private pieces(): (Uint8Array | undefined)[] {
    return Array.from(this.tokens, (token) => (token < 0 ? undefined : this.bytesOf(token)));
  }

  private rowsOf({ picture }: PicturePositions): number[] {
    const count = this.pictures.at(-1)?.number ?? 0;
    const wanted = typeof picture === 'number' && picture < 0 ? count + 1 + picture : picture;
    const rows = this.pictures.flatMap(({ number, first, nRows }) =>
      wanted === 'all' || wanted === number ? Array.from({ length: nRows }, (_, i) => first + i) : [],
    );
    if (rows.length > 0) return rows;
    const problem = count === 0 ? 'The prompt has no picture' : `The prompt has no picture ${String(picture)}`;
    throw new XpatchError('POSITION_OUT_OF_RANGE', `${problem}${count === 0 ? '' : `, only ${count}`}.`);
  }

  private range(range: PositionRange): number[] {
    const [from, to] = [this.position(range?.from), this.position(range?.to)];
    if (from > to) {
      throw new XpatchError('INVALID_ARGUMENT', `A range of positions must go upwards, not from ${from} to ${to}.`);
    }
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  }
}

/** A prompt, or what one is made of: a text, a part, or a list of parts. */
export type PromptInput = Prompt | PromptPart | readonly PromptPart[];

/**
 * A mark that names the token which ends at its place, for use among the parts of a prompt: `['Q:Peru\nA:', mark('delimiter')]`.
 *
 * @example
 * ```ts
 * const { states } = await context.run({ prompt: ['Q:Peru\nA:', mark('delimiter')], capture: 'all' });
 * const state = states.at(3, 'delimiter');
 * ```
 */
export function mark<const Name extends string>(name: Name): { mark: Name } {
  return { mark: name };
}
