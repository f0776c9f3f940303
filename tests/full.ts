/** Whether to try everything, and not the sample that CI has time for: XPATCH_FULL=1. */
export const FULL = process.env.XPATCH_FULL === '1';
