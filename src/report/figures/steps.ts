/** Steps of the colour scale of a lens. A cell has the class `q0` (nothing) to `q31` (the most). */
export const STEPS = 32;

/** The step of a share from 0 to 1. */
export const stepOf = (share: number): number => Math.min(STEPS - 1, Math.max(0, Math.floor(share * STEPS)));
