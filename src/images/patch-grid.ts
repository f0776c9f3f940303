import type { Prompt } from '../prompt/prompt.js';
import type { PatchGrid, PatchRectangle, PositionRef } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';

/** How the rows of a projector are laid out in the picture: line by line from the top left unless it says otherwise. */
interface Layout {
  /** Patches that one row stands for, in each direction; left out: as the mmproj file says. */
  merge?: number;
  /** Rows run down the columns instead. */
  columns?: true;
  /** The code of the merge is right for squares only. */
  square?: true;
  /** Incomplete cells at the right and lower edge are filled up; without it they are dropped. */
  padded?: true;
  /** Rows between and around the patches that stand for no part of the picture: how many in front, at the end of each line, at the end. */
  separators?: readonly Separators[];
}
type Separators = readonly [before: number, lineEnd: number, after: number];

const NONE: Separators = [0, 0, 0];
const BEGIN_AND_END: Separators = [1, 0, 1];
const NEWLINES: Separators = [0, 1, 0];
/** No separator after the last line. */
const BREAKS: Separators = [0, 1, -1];
const NEWLINES_AND_END: Separators = [0, 1, 1];

/**
 * The projectors that keep a grid, by mtmd's names, read from the graphs in llama.cpp v0.4.0, tools/mtmd/models (the order of rows)
 * and from clip_n_output_tokens in clip.cpp (their number). Convolutions with overlap (ldp, ldpv2, step3vl) count as a grid: a row
 * has the cell that its kernel is centred on.
 */
const GRIDS: Readonly<Record<string, Layout>> = {
  mlp: { merge: 1 },
  mlp_norm: { merge: 1 },
  janus_pro: { merge: 1 },
  phi4: { merge: 1 },
  cogvlm: { merge: 1, separators: [BEGIN_AND_END] },
  ldp: { merge: 2 },
  ldpv2: { merge: 2 },
  adapter: { merge: 2, separators: [BEGIN_AND_END] },
  // Merged patches in lines; window attention reorders them inside and puts them back.
  qwen2vl_merger: { merge: 2 },
  'qwen2.5vl_merger': { merge: 2 },
  qwen3vl_merger: { merge: 2 },
  exaone4_5: { merge: 2 },
  mimovl: { merge: 2 },
  minimax_m3: { merge: 2 },
  glm4v: { merge: 2 },
  youtuvl: { merge: 2 },
  'muse-glimmer': { merge: 2 },
  gemma3: {},
  gemma4v: {},
  gemma4uv: {},
  idefics3: {},
  nemotron_v2_vl: {},
  step3vl: {},
  minicpmv4_6: {},
  paddleocr: {},
  dots_ocr: {},
  dots3note_v: {},
  // Not mtmd's but src/images/encoders/fuyu.ts.
  fuyu: { merge: 1, padded: true, separators: [NEWLINES] },
  lfm2: { padded: true },
  kimivl: { padded: true },
  kimik25: { padded: true },
  internvl: { square: true },
  // Its pixel shuffle leaves out the last transposition, so that rows run down the columns.
  llama4: { square: true, columns: true },
  pixtral: { separators: [NONE, BREAKS] },
  lightonocr: { separators: [NONE, BREAKS] },
  // The whole picture, or a single tile. Several tiles side by side are read as one tall picture, whose rows interleave.
  deepseekocr: { merge: 4, separators: [NEWLINES_AND_END, NEWLINES] },
};

/** Why the others have none. */
const REASONS: Readonly<Record<string, string>> = {
  // Not mtmd's but src/images/encoders/idefics2.ts.
  idefics2: 'its rows are learned queries that each look at the whole picture',
  resampler: 'its rows are learned queries that each look at the whole picture',
  deepseekocr2: 'its rows are learned queries that each look at the whole picture',
  granite4_vision: 'its rows are learned queries over windows of patches',
  gemma3nv: 'its convolutional encoder resamples feature maps of several sizes to one',
  yasa2: 'it pools the feature map of a convolutional encoder to 8 x 8, whatever its size',
  deepseek4v: 'it interleaves two lines of patches with padding that depends on the text before the picture',
};

/** What decides where in a picture its encoded rows are. */
export interface EncodedShape {
  /** mtmd's name of the projector type. */
  projector: string;
  /** Side of a patch, pixels. */
  patchSize: number;
  /** Patches merged in each direction, as the mmproj file says. */
  merge: number;
  nRows: number;
  /** Size of the preprocessed picture, pixels. */
  width: number;
  height: number;
}

/** For each row its rectangle of the preprocessed picture. Whatever does not come out exactly has a reason instead. */
export function patchGrid(shape: EncodedShape): PatchGrid {
  const { projector, patchSize, nRows, width, height } = shape;
  const layout = Object.hasOwn(GRIDS, projector) ? GRIDS[projector] : undefined;
  if (!layout) {
    const reason = Object.hasOwn(REASONS, projector) ? REASONS[projector] : 'xpatch does not know where its rows are';
    return { reason: `projector '${projector}': ${reason}` };
  }
  const cell = patchSize * (layout.merge ?? shape.merge);
  const count = (side: number) => (layout.padded ? Math.ceil(side / cell) : Math.floor(side / cell));
  const [columns, lines] = [count(width), count(height)];
  if (layout.square && columns !== lines) {
    return { reason: `projector '${projector}': the order of its rows is defined for square pictures only` };
  }
  const separators = (layout.separators ?? [NONE]).find(
    ([before, lineEnd, after]) => before + lines * (columns + lineEnd) + after === nRows,
  );
  if (!separators || columns * lines < 1) {
    return {
      reason: `projector '${projector}': its ${nRows} rows are not the ${columns} x ${lines} cells of ${cell} pixels of a ${width} x ${height} picture`,
    };
  }
  const [before, lineEnd, after] = separators;
  const grid: (PatchRectangle | undefined)[] = new Array(before).fill(undefined);
  for (let line = 0; line < lines; line++) {
    for (let column = 0; column < columns; column++) {
      const [x, y] = (layout.columns ? [line, column] : [column, line]).map((i) => i * cell) as [number, number];
      grid.push({ x, y, width: Math.min(cell, width - x), height: Math.min(cell, height - y) });
    }
    for (let i = 0; i < lineEnd; i++) grid.push(undefined);
  }
  if (after < 0) grid.length += after;
  for (let i = 0; i < after; i++) grid.push(undefined);
  return grid;
}

/**
 * The part of a picture that a row of a prompt stands for. Attention mixes rows: what a row holds comes mostly, not only,
 * from its rectangle.
 *
 * @returns The rectangle in pixels of `prompt.pictures[picture].seen`, and that index.
 * @throws XpatchError NO_PATCH_GRID for a token, for a separator row, and for all rows of a projector that keeps no grid, with the
 *   reason; POSITION_OUT_OF_RANGE.
 *
 * @example
 * ```ts
 * const prompt = await model.prompt(['Q:', { image: 'data/images/twemoji/peru.png' }, '\nA:']);
 * const { x, y, width, height } = patchRectangle(prompt, prompt.pictures[0].first);
 * ```
 */
export function patchRectangle(prompt: Prompt, position: PositionRef): PatchRectangle & { picture: number } {
  const index = prompt.position(position);
  const refuse = (why: string) =>
    new XpatchError('NO_PATCH_GRID', `Position ${index} is not part of a picture: ${why}.`);
  const picture = prompt.pictures.findIndex(({ first, nRows }) => index >= first && index < first + nRows);
  const found = prompt.pictures[picture];
  if (!found) throw refuse('it is a token of the text');
  const { grid, first } = found;
  if ('reason' in grid) {
    throw new XpatchError('NO_PATCH_GRID', `The rows of this picture have no place in it (${grid.reason}).`);
  }
  const rectangle = grid[index - first];
  if (!rectangle) throw refuse('it is a separator between lines of patches, or the beginning or end of a picture');
  return { ...rectangle, picture };
}
