import { promisify } from 'node:util';
import { deflateRaw } from 'node:zlib';
import type { LensCell } from '../../lens/logit-lens.js';
import { XpatchError } from '../../util/errors.js';
import { requireLens } from '../figures/heatmap.js';
import type { LensView } from '../report.js';
import {
  BEST,
  type EncodedLens,
  type LensHead,
  type LensRank,
  packLinear,
  packProbability,
  TRACKED,
  toPlanes,
} from './lens-encoding.js';

const deflate = promisify(deflateRaw);
/** Cells handled before other work gets its turn. */
const SLICE = 10_000;
const pause = () => new Promise((resolve) => setImmediate(resolve));

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
  const cells: LensCell[] = [];
  let [maxEntropy, maxKl, topK] = [0, 0, Number.POSITIVE_INFINITY];
  for (let p = first; p < lens.positions.length; p++) {
    for (const { l } of order) {
      const cell = lens.cells[l]?.[p] as LensCell;
      cells.push(cell);
      maxEntropy = Math.max(maxEntropy, cell.entropy);
      maxKl = Math.max(maxKl, cell.kl);
      topK = Math.min(topK, cell.top.length);
    }
    if (p % 500 === 0) await pause();
  }
  const tracked = cells[0]?.tokens.map(({ token, text }) => ({ token, text })) ?? [];
  const texts = new Map<string, number>();
  const indexOf = (text: string) => {
    const index = texts.get(text) ?? texts.size;
    texts.set(text, index);
    return index;
  };
  const inputIndices = inputs.slice(first).map(({ text, kind }) => (kind === 'image' ? -1 : indexOf(text)));

  const plane = async (of: (cell: LensCell) => number, bytes: number) => {
    const numbers = new Uint32Array(cells.length);
    for (let from = 0; from < cells.length; from += SLICE) {
      for (let i = from; i < Math.min(cells.length, from + SLICE); i++) numbers[i] = of(cells[i] as LensCell);
      await pause();
    }
    return toPlanes(numbers, bytes);
  };
  const head: LensHead = {
    layers,
    positions,
    settled: lens.settled.slice(first).map((layer) => layers.indexOf(layer)),
    inputs: inputIndices,
    texts: [...texts.keys()],
    tracked,
    listed: view.listed ?? tracked.length,
    maxEntropy,
    maxKl,
  };
  const planes = [
    await plane((cell) => packLinear(finite(cell.entropy), maxEntropy), 2),
    await plane((cell) => packLinear(finite(cell.kl), maxKl), 2),
  ];
  for (let i = 0; i < tracked.length; i++) {
    planes.push(await plane((cell) => packProbability(finite(cell.tokens[i]?.probability), TRACKED), 2));
    planes.push(await plane((cell) => finite(cell.tokens[i]?.rank), 3));
  }

  const known = new Map<number, number>();
  const ranks: string[] = [];
  for (let r = 0; r < topK; r++) {
    const fresh = { tokens: [] as number[], texts: [] as string[] } satisfies LensRank;
    const index = ({ top }: LensCell) => {
      const { token, text } = top[r] as LensCell['top'][number];
      const found = known.get(token);
      if (found !== undefined) return found;
      fresh.tokens.push(token);
      fresh.texts.push(text);
      known.set(token, known.size);
      return known.size - 1;
    };
    const tokens = await plane(index, 3);
    const probabilities = await plane(({ top }) => packProbability(finite(top[r]?.probability), BEST), 2);
    ranks.push(await pack(fresh, [tokens, probabilities]));
  }
  return { head: await pack(head, planes), ranks };
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
    if (left < 2) throw new XpatchError('INVALID_ARGUMENT', 'A lens does not fit into the page. Take fewer layers.');
    const share = 0.97 * Math.max(0, 1 - (size - budget) / sizeOf(data));
    largest.first = Math.max(first + 1, positions.length - Math.max(1, Math.floor(share * left)));
    largest.data = await encodeLens(view, largest.first);
  }
}

const sizeOf = ({ head, ranks }: EncodedLens): number => ranks.reduce((sum, rank) => sum + rank.length, head.length);

function finite(x: number | undefined): number {
  if (x !== undefined && Number.isFinite(x)) return x;
  throw new XpatchError('NOT_FINITE', `A lens has ${x} among its numbers and cannot be shown.`);
}

async function pack(json: LensHead | LensRank, planes: readonly Uint8Array[]): Promise<string> {
  const text = Buffer.from(JSON.stringify(json));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  return (await deflate(Buffer.concat([length, text, ...planes]))).toString('base64');
}
