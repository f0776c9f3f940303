import { resolveLayers } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { Model } from '../model/model.js';
import { asRow, type RowInput } from '../model/pass.js';
import { trackedTokens } from '../model/tracked.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PositionSelection } from '../prompt/types.js';
import { type Lens, logitLens } from './logit-lens.js';
import type { TunedLens } from './tuned-lens.js';

/** Which states of a prompt are read, and what is kept of them. */
export interface PromptLensOptions {
  /** The last layer is always read: without it there were nothing to compare the others with. Defaults to `all`. */
  layers?: LayerSelection;
  /** Defaults to `all`. */
  positions?: PositionSelection;
  /** Best tokens kept of each state. Defaults to 5. */
  topK?: number;
  /** Token ids, or texts that are one token after the prompt, whose rank and probability are kept of each state. Defaults to none. */
  track?: readonly (string | number)[];
  /** Maps every state to a prediction of the last layer's first. Defaults to none. */
  tuned?: TunedLens;
  signal?: AbortSignal;
  /** States read of all. */
  onProgress?: OnProgress;
}

/** What the states of a prompt say. */
export interface PromptLens {
  model: Model;
  prompt: Prompt;
  /** Of all positions asked for. */
  lens: Lens;
  /** The same at the last of these positions, with the tokens to be followed through the layers. */
  last: Lens;
  /** How many of the tokens in `lens` were asked for; the others are there to be pinned in the page. */
  asked: number;
  /** Whether the states went through a tuned lens. */
  tuned: boolean;
}

/** The best tokens of the highest layer that are followed through the layers, besides those asked for. */
const FOLLOWED = 3;

/** Tokens besides those asked for that are read in every state, and numbers of them, at most. */
const PINNABLE = 32;
const PINNABLE_NUMBERS = 200_000;

/**
 * Reads a prompt layer by layer, with what a page of it needs: the tokens that can be pinned, and those to be followed.
 *
 * @throws {XpatchError} as `Context.pass` and `logitLens`; INVALID_ARGUMENT for a tracked text that is not one token
 */
export async function readPromptLens(
  context: Context,
  query: RowInput,
  options: PromptLensOptions = {},
): Promise<PromptLens> {
  const { positions = 'all', tuned, signal, onProgress } = options;
  const { model } = context;
  const { nLayers, nVocab } = model.info;
  const chosen = resolveLayers(options.layers ?? 'all', nLayers);
  const layers = [...new Set([...chosen, nLayers - 1])].sort((a, b) => a - b);
  const row = asRow(query);
  const prompt = await model.prompt(row.prompt, { signal });
  const tracked = [...new Set(await trackedTokens(model, prompt, options.track ?? []))];
  const { states: captured } = await context.run({ ...row, prompt, capture: { layers, positions } }, { signal });
  const states = tuned ? await tuned.apply(captured, { signal }) : captured;
  const topK = Math.min(options.topK ?? 5, nVocab);
  const tokens = [...tracked, ...(await pinnable(context, states, tracked, signal))];
  const lens = await logitLens(context, states, { topK, tokens, signal, onProgress });
  const atLast = states.select({ positions: ['last'] });
  const last = await logitLens(context, atLast, { topK, tokens: followed(lens, tracked), signal });
  return { model, prompt, lens, last, asked: tracked.length, tuned: tuned !== undefined };
}

/**
 * The best tokens of the highest layer, from the last position backwards, as many as a page has room for: pinned there, they
 * show their probability and rank at every layer.
 */
async function pinnable(
  context: Context,
  states: HiddenStates,
  tracked: readonly number[],
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const [nLayers, nPositions] = states.shape;
  const highest = states.select({ layers: [Math.max(...states.layers)] });
  const { cells } = await logitLens(context, highest, { topK: 1, signal });
  const best = cells[0]?.map(({ top }) => top[0]?.token as number).reverse() ?? [];
  const room = Math.min(PINNABLE, Math.floor(PINNABLE_NUMBERS / (nLayers * nPositions)));
  return [...new Set(best)].filter((token) => !tracked.includes(token)).slice(0, room);
}

function followed({ layers, positions, cells }: Lens, tracked: readonly number[]): number[] {
  const highest = layers.indexOf(Math.max(...layers));
  const best = cells[highest]?.[positions.length - 1]?.top.slice(0, FOLLOWED) ?? [];
  return [...new Set([...tracked, ...best.map(({ token }) => token)])];
}
