import { XpatchError } from '../util/errors.js';
import type { HookPoints } from './points.js';
import { ATTENTION_HOOKS, HOOKS, type HookName } from './types.js';

/** Which numbers of the rows at a point are meant, as the addon takes it. */
export interface RowPart {
  hook: number;
  layer: number;
  /** Pairs of where numbers begin in a row and how many there are. */
  spans: Int32Array;
  /** Numbers in the spans. */
  width: number;
  /** At `attn_scores` and `pattern`: positions that a row has numbers for; 0 elsewhere. */
  keys: number;
  /** Whether only rows with outputs pass there. */
  trimmed: boolean;
}

/**
 * All numbers of the rows at a point, or those of some heads, side by side in the order asked for.
 *
 * @param nPositions of the prompt
 * @throws XpatchError HEAD_OUT_OF_RANGE, INVALID_ARGUMENT, HOOK_UNSUPPORTED.
 */
export function partOf(
  points: HookPoints,
  hook: HookName,
  layer: number,
  { heads, nPositions }: { heads: readonly number[] | undefined; nPositions: number },
): RowPart & { heads: readonly number[] | undefined; fullWidth: number } {
  const point = points.at(hook, layer);
  const keys = ATTENTION_HOOKS.includes(hook) ? nPositions : 0;
  const fullWidth = keys ? point.heads * keys : point.width;
  const chosen = headsOf(hook, layer, point.heads, heads);
  const size = chosen ? fullWidth / point.heads : fullWidth;
  const spans = !heads || !chosen ? [0, fullWidth] : chosen.flatMap((head) => [head * size, size]);
  return {
    hook: HOOKS.indexOf(hook),
    layer,
    spans: Int32Array.from(spans),
    width: heads && chosen ? chosen.length * size : fullWidth,
    keys,
    trimmed: point.trimmed,
    heads: chosen,
    fullWidth,
  };
}

/** Heads that are meant; undefined at a point without heads. */
function headsOf(
  hook: HookName,
  layer: number,
  count: number,
  heads: readonly number[] | undefined,
): readonly number[] | undefined {
  if (heads === undefined) return count ? Array.from({ length: count }, (_, head) => head) : undefined;
  if (count === 0) {
    throw new XpatchError('HOOK_UNSUPPORTED', `'${hook}' is not made of heads. Leave out the heads.`);
  }
  if (!Array.isArray(heads) || heads.length === 0) {
    throw new XpatchError('INVALID_ARGUMENT', `Heads must be a list of at least one number, not ${heads}.`);
  }
  const wrong = heads.find((head) => !Number.isInteger(head) || head < 0 || head >= count);
  if (wrong !== undefined) {
    const there = `'${hook}' of layer ${layer} has heads 0 to ${count - 1}`;
    throw new XpatchError('HEAD_OUT_OF_RANGE', `Head ${wrong} does not exist: ${there}.`);
  }
  if (new Set(heads).size !== heads.length) {
    throw new XpatchError('INVALID_ARGUMENT', `Heads repeat: ${heads.join(', ')}. Name each once.`);
  }
  return [...heads];
}
