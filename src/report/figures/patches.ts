import type { PatchRectangle } from '../../prompt/types.js';
import type { LensPicture, LensView } from '../report.js';

/** A patch of a picture, and the index of its row among the positions of the lens. */
export interface Patch extends PatchRectangle {
  readonly p: number;
}

/** The patches of a picture that the lens has positions for; none when the picture has no grid. */
export function patchesOf({ lens }: LensView, { grid, first }: LensPicture): Patch[] {
  if ('reason' in grid) return [];
  return lens.positions.flatMap((position, p) => {
    const rectangle = grid[position - first];
    return rectangle === undefined ? [] : [{ ...rectangle, p }];
  });
}
