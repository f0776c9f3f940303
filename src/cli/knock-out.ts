import type { Edge } from '../hooks/types.js';
import type { PositionSelection } from '../prompt/types.js';
import { usageError } from './errors.js';
import { parseAt, parseHeads, parseLayers, placesOf, readPlaces } from './options.js';

/**
 * `LAYERS[:HEADS]:FROM->TO`, such as `3-5:0,2:0-4->last` or `all:Peru->last`.
 *
 * @param escaped read escapes such as \\n in texts
 */
export function parseEdge(given: string, escaped: boolean): Edge {
  const [, layers, heads, from, to, more] = /^([^:]*):(?:\s*(all|[\d\s,-]+):)?(.*?)->(.*?)(->.*)?$/s.exec(given) ?? [];
  if (layers === undefined || !from || !to || more !== undefined) {
    const wanted = 'LAYERS:FROM->TO or LAYERS:HEADS:FROM->TO, such as 3-5:0-4->last or all:Peru->last';
    const wayOut = more === undefined ? '' : ' A text with an arrow in it is named by its positions.';
    throw usageError(`--knock-out takes ${wanted}, not ${JSON.stringify(given)}.${wayOut}`);
  }
  const chosen = heads === undefined || heads === 'all' ? {} : { heads: parseHeads(heads, '--knock-out') };
  const [keys, queries] = [from, to].map((side) => parseSide(side, escaped)) as [PositionSelection, PositionSelection];
  return { layers: parseLayers(layers, '--knock-out'), ...chosen, from: keys, to: queries };
}

/** `all`, `last`, numbers, or what --at takes. */
function parseSide(given: string, escaped: boolean): PositionSelection {
  const places = readPlaces(given);
  if (places !== undefined) return places;
  if (!/^[\d\s,-]+$/.test(given)) return placesOf({ at: parseAt(given), escape: escaped }, 'last');
  const wayOut = `the text of that name is ${given.trim()}#1`;
  throw usageError(`--knock-out takes positions such as 0-4 or -1, not ${JSON.stringify(given)}; ${wayOut}.`);
}
