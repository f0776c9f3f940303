import type { Intervention } from '../hooks/types.js';
import type { Context, PassOptions } from '../model/context.js';
import type { TokenScore } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { DELIMITER } from '../tasks/prompts.js';
import { XpatchError } from '../util/errors.js';

/** A query's own state at the token that is patched, and what the model says next. */
export interface OwnState {
  readonly layer: number;
  readonly norm: number;
  readonly top: TokenScore;
  readonly writtenBack: Intervention;
}

/** What was seen when a state was written back: its distance to the one there, and the best next token. */
interface Seen {
  readonly delta: number | undefined;
  readonly top: TokenScore | undefined;
}

/**
 * How far the state that identity writes back may be from the one there, as a share of its norm, and how far the best token's
 * probability may move. It was read in another batch, where sums of another order may end in another step of quantised arithmetic.
 * Where a state has outliers the steps are coarse: in Gemma-3-270M in Q4_K_M it moves by 0.04 of its norm in the median and by up to
 * 0.21, with llama.cpp alone too, and a probability by 0.08 once in 400 queries. So what moves further is asked once more, alone.
 */
const TOLERANCE = { state: 0.1, probability: 0.05 };

/**
 * The states of queries at some layers each.
 * @param how keep: what comes before the token that is patched stays in the cache for what is asked next
 */
export async function ownStates(
  context: Context,
  asked: readonly { readonly prompt: Prompt; readonly layers: readonly number[] }[],
  how: PassOptions = {},
): Promise<((layer: number) => OwnState)[]> {
  if (asked.length === 0) return [];
  const rows = asked.map(({ prompt, layers }) => ({ prompt, capture: { layers, positions: DELIMITER }, topK: 1 }));
  const results = await context.pass(rows, how);
  return results.map(({ top, states }, i) => (layer) => {
    const value = states.row((rows[i] as (typeof rows)[0]).capture.layers.indexOf(layer), 0);
    const writtenBack: Intervention = { layers: layer, positions: DELIMITER, op: 'replace', value };
    return { layer, norm: Math.hypot(...value), top: top[0] as TokenScore, writtenBack };
  });
}

/**
 * Whether writing a state back changed nothing. If something moved, the query is asked alone: its state is read and written back in
 * passes of the same rows, so that nothing but a patch that does not work can move it.
 *
 * @throws {XpatchError} NATIVE_FAILURE
 */
export async function requireUnchanged(context: Context, prompt: Prompt, own: OwnState, seen: Seen): Promise<void> {
  if (isUnchanged(own, seen)) return;
  const { layer } = own;
  const [read] = await ownStates(context, [{ prompt, layers: [layer] }]);
  const alone = (read as (layer: number) => OwnState)(layer);
  const [again] = await context.pass([{ prompt, interventions: [alone.writtenBack], topK: 1 }]);
  const after = { delta: again?.interventions[0]?.delta, top: again?.top[0] };
  if (isUnchanged(alone, after)) return;
  const [from, to] = [alone.top, after.top].map((top) => top?.probability.toPrecision(3));
  const change = `moved it by ${after.delta?.toPrecision(3)} (its norm is ${alone.norm.toPrecision(3)}) and the best token's probability from ${from} to ${to}`;
  throw new XpatchError(
    'NATIVE_FAILURE',
    `Writing a query's own state back ${change}: patches do not work. Run xpatch doctor.`,
  );
}

function isUnchanged({ norm, top: before }: OwnState, { delta = Number.NaN, top }: Seen): boolean {
  const moved = Math.abs((top?.probability ?? Number.NaN) - before.probability);
  return delta <= TOLERANCE.state * norm && moved <= TOLERANCE.probability;
}
