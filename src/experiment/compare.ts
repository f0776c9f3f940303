import { isDeepStrictEqual } from 'node:util';
import type { TaskVector } from '../vectors/task-vector.js';
import type { ResultLine } from './types.js';

/**
 * How far numbers from two machines may differ: they round differently, and quantised weights amplify that. Absolute, and
 * relative to the larger one.
 */
const TOLERANCES: Partial<Record<keyof ResultLine, { absolute: number; relative: number }>> = {
  probability: { absolute: 0.01, relative: 0 },
  logLikelihood: { absolute: 0.05, relative: 0.01 },
  kl: { absolute: 0.05, relative: 0.05 },
  // For identity it is rounding alone.
  delta: { absolute: 0.05, relative: 0.01 },
  // After the first few come thousands of tokens with almost no probability.
  rank: { absolute: 1, relative: 0.05 },
  answerRank: { absolute: 1, relative: 0 },
};
const VECTOR_TOLERANCE = 0.01;

/** How two answers to the same query differ beyond rounding; undefined if they agree. */
export function differenceOfLines(a: ResultLine, b: ResultLine): string | undefined {
  const fields = [...new Set([...Object.keys(a), ...Object.keys(b)])] as (keyof ResultLine)[];
  const field = fields.find((name) => {
    const [x, y] = [a[name], b[name]];
    const tolerance = Object.hasOwn(TOLERANCES, name) ? TOLERANCES[name] : undefined;
    if (tolerance === undefined || typeof x !== 'number' || typeof y !== 'number') return !isDeepStrictEqual(x, y);
    return Math.abs(x - y) > tolerance.absolute + tolerance.relative * Math.max(Math.abs(x), Math.abs(y));
  });
  return field && `${field}: ${JSON.stringify(a[field]) ?? 'none'} and ${JSON.stringify(b[field]) ?? 'none'}`;
}

/** The same for two vectors: in their origin, or in a layer, by more than a hundredth of its norm. */
export function differenceOfVectors(a: TaskVector, b: TaskVector): string | undefined {
  if (!isDeepStrictEqual(a.info, b.info)) return 'how they were made';
  const [norms, apart] = [a.norms(), a.subtract(b).norms()];
  const row = apart.findIndex((norm, i) => norm > VECTOR_TOLERANCE * (norms[i] as number));
  return row < 0 ? undefined : `layer ${a.info.layers[row]}`;
}

/** The same for the results of a part of a study: numbers by a twentieth or 0.05, everything else exactly. */
export function differenceOfResults(a: unknown, b: unknown, path = ''): string | undefined {
  if (typeof a === 'number' && typeof b === 'number') {
    if (Math.abs(a - b) <= 0.05 + 0.05 * Math.max(Math.abs(a), Math.abs(b))) return undefined;
  } else if (typeof a === 'object' && typeof b === 'object' && a !== null && b !== null) {
    const [x, y] = [a, b] as Record<string, unknown>[];
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const difference = differenceOfResults(x?.[key], y?.[key], path ? `${path}.${key}` : key);
      if (difference !== undefined) return difference;
    }
    return undefined;
  } else if (a === b) return undefined;
  return `${path}: ${JSON.stringify(a) ?? 'none'} and ${JSON.stringify(b) ?? 'none'}`;
}
