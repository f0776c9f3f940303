import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { LensCell } from '../../lens/logit-lens.js';
import { XpatchError } from '../../util/errors.js';
import { Pace } from '../../util/pace.js';
import { requireLens } from '../figures/heatmap.js';
import type { LensView } from '../report.js';
import type { EncodedLens, LensHead, LensRank } from './lens-encoding.js';

/**
 * The numbers of a lens for a page, all ranks of its top-k.
 * @param first index of the first position to take. Defaults to 0
 * @throws XpatchError NOT_FINITE, INVALID_ARGUMENT for a lens without layers, positions or best tokens
 */
export async function encodeLens(view: LensView, first = 0): Promise<EncodedLens> {
  requireLens(view);
  const { lens, inputs } = view;
  const order = lens.layers.map((layer, l) => ({ layer, l })).sort((a, b) => a.layer - b.layer);
  const layers = order.map(({ layer }) => layer);
  const positions = lens.positions.slice(first);
  const cells = positions.flatMap((_, p) => order.map(({ l }) => lens.cells[l]?.[first + p] as LensCell));
  const pace = new Pace();
  const numbers = (of: (cell: LensCell) => number) => pace.map(cells, of);

  const tracked: LensHead['tracked'][number][] = [];
  for (const [i, { token, text }] of (cells[0]?.tokens ?? []).entries()) {
    const probability = await numbers(({ tokens }) => toDigits(tokens[i]?.probability));
    tracked.push({ token, text, probability, rank: await numbers(({ tokens }) => finite(tokens[i]?.rank)) });
  }
  const head: LensHead = {
    layers,
    positions,
    settled: lens.settled.slice(first).map((layer) => layers.indexOf(layer)),
    inputs: inputs.slice(first).map(({ text, kind }) => (kind === 'image' ? null : text)),
    entropy: await numbers(({ entropy }) => toDecimals(entropy)),
    kl: await numbers(({ kl }) => toDecimals(kl)),
    tracked,
    listed: view.listed ?? tracked.length,
  };

  const known = new Set<number>();
  const ranks: string[] = [];
  const topK = cells.reduce((least, { top }) => Math.min(least, top.length), Number.POSITIVE_INFINITY);
  for (let r = 0; r < topK; r++) {
    const texts: Record<number, string> = {};
    const tokenOf = ({ top }: LensCell) => {
      const { token, text } = top[r] as LensCell['top'][number];
      if (!known.has(token)) texts[token] = text;
      known.add(token);
      return token;
    };
    const rank: LensRank = {
      token: await numbers(tokenOf),
      probability: await numbers(({ top }) => toDigits(top[r]?.probability)),
      texts,
    };
    ranks.push(await pack(rank));
  }
  return { head: await pack(head), ranks };
}

/** What of a lens is in a page. */
export interface FittedLens {
  readonly view: LensView;
  /** How many ranks the lens has. */
  readonly nRanks: number;
  /** Index of the first position that is kept. */
  first: number;
  /** May have fewer ranks than the lens. */
  data: EncodedLens;
}

/**
 * The lenses of a page within `budget` bytes: first fewer ranks of those that take most, then only the last positions.
 */
export async function fitLenses(views: readonly LensView[], budget: number): Promise<FittedLens[]> {
  const fitted: FittedLens[] = [];
  for (const view of views) {
    const data = await encodeLens(view);
    fitted.push({ view, nRanks: data.ranks.length, first: 0, data });
  }
  for (;;) {
    const size = fitted.reduce((sum, { data }) => sum + sizeOf(data), 0);
    if (size <= budget) return fitted;
    const largest = fitted.reduce((a, b) => (sizeOf(b.data) > sizeOf(a.data) ? b : a));
    const { view, first, data } = largest;
    if (data.ranks.length > 1) {
      largest.data = { head: data.head, ranks: data.ranks.slice(0, -1) };
      continue;
    }
    const { positions } = view.lens;
    const left = positions.length - first;
    if (left < 2) throw new XpatchError('INVALID_ARGUMENT', 'A lens does not fit on the page. Use fewer layers.');
    const share = 0.97 * Math.max(0, 1 - (size - budget) / sizeOf(data));
    largest.first = Math.max(first + 1, positions.length - Math.max(1, Math.floor(share * left)));
    largest.data = await encodeLens(view, largest.first);
  }
}

const sizeOf = ({ head, ranks }: EncodedLens): number => ranks.reduce((sum, rank) => sum + rank.length, head.length);

const toDigits = (x: number | undefined): number => Number(finite(x).toPrecision(3));
const toDecimals = (x: number): number => Number(finite(x).toFixed(3));

function finite(x: number | undefined): number {
  if (x !== undefined && Number.isFinite(x)) return x;
  throw new XpatchError('NOT_FINITE', `A lens has ${x} among its numbers and cannot be shown.`);
}

/** A part of a page's data: JSON, gzip, base64. */
export async function pack(part: object): Promise<string> {
  return (await promisify(gzip)(JSON.stringify(part))).toString('base64');
}
