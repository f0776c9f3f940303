import type { Edge } from '../hooks/types.js';
import { usageError } from './errors.js';
import { parseHeads, parseLayers, parsePlaces } from './options.js';

/** `LAYERS[:HEADS]:FROM->TO`, such as `3-5:0,2:0-4->last`. */
export function parseEdge(text: string): Edge {
  const parts = text.split(':');
  const [from, to, ...more] = (parts.pop() as string).split('->').map((side) => parsePlaces(side.trim()));
  const [layers, heads, ...others] = parts;
  if (layers === undefined || !from || !to || more.length || others.length) {
    const wanted = 'LAYERS:FROM->TO or LAYERS:HEADS:FROM->TO, such as 3-5:0-4->last';
    throw usageError(`--knock-out takes ${wanted}, not ${JSON.stringify(text)}.`);
  }
  const chosen = heads === undefined || heads === 'all' ? {} : { heads: parseHeads(heads, '--knock-out') };
  return { layers: parseLayers(layers, '--knock-out'), ...chosen, from, to };
}
