import type { Ablation } from '../circuits/ablate.js';
import type { Attribution, LogitPart } from '../circuits/attribution.js';
import type { HeadEffects } from '../circuits/function-vector.js';
import type { Head, HeadMap } from '../circuits/heads.js';
import type { PatchTops } from '../circuits/measure.js';
import type { PatchMap } from '../circuits/patch-layers.js';
import type { TokenScore } from '../model/types.js';
import { counted } from '../util/counted.js';
import { largest, smallest } from '../util/extremes.js';
import { numbers, texts } from './columns.js';
import type { BestToken, Block, PatchMapColumn, PatchMapView, Report, TextTable } from './report.js';
import { visibleText } from './visible.js';

type About = Pick<Report, 'title' | 'introduction' | 'provenance'>;

/** What a metric is called where its values are shown. */
export interface Measured {
  /** Such as `logit of " Lima" - logit of " Tokyo"`. */
  readonly metric: string;
  /** The metric of the clean prompt and of the corrupt one. */
  readonly clean: number;
  readonly corrupt: number;
  /** Of `HeadPatching`. */
  readonly tops?: PatchTops | undefined;
}

/** What stands at a position of the corrupt prompt and of the clean one; null for a row of a picture. */
export type MapInputs = NonNullable<PatchMapColumn['inputs']>;

/** The report of an activation patching map: layers x positions. */
export function patchMapReport(map: PatchMap, inputs: readonly MapInputs[], metric: string, about: About): Report {
  const { positions, clean, corrupt, tops } = map;
  const columns = positions.map((number, p) => ({ number, inputs: inputs[p] as MapInputs }));
  const order = ascending(map.layers);
  const values = order.map((layer) => positions.map((position) => map.at(layer, position)));
  const index = (l: number, p: number) => map.layers.indexOf(order[l] as number) * positions.length + p;
  const top = topsOf(tops, values, index);
  return mapReport({ metric, clean, corrupt, unit: 'position', layers: order, columns, values, ...top }, about);
}

/** The report of patching by head: layers x heads. */
export function headMapReport(map: HeadMap, { metric, clean, corrupt, tops }: Measured, about: About): Report {
  const heads = ascending(map.heads.map(({ head }) => head));
  const layers = ascending(map.heads.map(({ layer }) => layer));
  const values = layers.map((layer) => heads.map((head) => map.at(layer, head)));
  const index = (l: number, p: number) =>
    map.heads.findIndex(({ layer, head }) => layer === layers[l] && head === heads[p]);
  const columns = heads.map((number) => ({ number }));
  const top = topsOf(tops, values, index);
  return mapReport({ metric, clean, corrupt, unit: 'head', layers, columns, values, ...top }, about);
}

const ascending = (numbers: readonly number[]): number[] => [...new Set(numbers)].sort((a, b) => a - b);

/** Cells whose best tokens a page has room for. */
const MOST_CELLS = 20_000;

function topsOf(
  tops: PatchTops | undefined,
  values: readonly (readonly number[])[],
  index: (l: number, p: number) => number,
): Pick<PatchMapView, 'top'> {
  if (tops === undefined || tops.patched.length > MOST_CELLS) return {};
  const best = (scores: readonly TokenScore[]) =>
    scores.map(({ text, probability }): BestToken => [text, Number(probability.toPrecision(3))]);
  const patched = values.map((row, l) => row.map((_, p) => best(tops.patched[index(l, p)] ?? [])));
  return { top: { clean: best(tops.clean), corrupt: best(tops.corrupt), patched } };
}

function mapReport(map: PatchMapView, about: About): Report {
  const { metric, clean, corrupt, unit } = map;
  const columns = map.columns.map(({ number, inputs }) =>
    inputs ? `${number} ${inputs[0] === null ? 'picture' : visibleText(inputs[0])}` : `${unit} ${number}`,
  );
  const rows = map.layers.map((layer, l) => [layer, map.values[l] as readonly number[]] as const);
  const values = map.values.flat();
  const furthest = values.reduce(
    (best, value) => (Math.abs(value - corrupt) > Math.abs(best - corrupt) ? value : best),
    corrupt,
  );
  const [layer, row] = rows.find(([, one]) => one.includes(furthest)) ?? [0, []];
  const place = columns[row.indexOf(furthest)] ?? '';
  const table: TextTable = {
    title: `${metric}, by layer and ${unit}`,
    columns: [...numbers(0, 'layer'), ...numbers(3, ...columns)],
    rows: [...rows].reverse().map(([l, one]) => [l, ...one]),
    shade: [smallest([corrupt, ...values]), largest([corrupt, ...values])],
    notes: [
      `Clean prompt ${clean.toFixed(3)}, corrupt prompt ${corrupt.toFixed(3)}: each number is the corrupt prompt with one patch.`,
    ],
  };
  return {
    ...about,
    headline: `${furthest.toFixed(2)} at layer ${layer}, ${place} (clean ${clean.toFixed(2)}, corrupt ${corrupt.toFixed(2)})`,
    blocks: [{ kind: 'table', name: 'map', heading: 'One patch at a time', table, map }],
  };
}

/** The report of a function vector: the effects of all heads, and the heads that it is made of. */
export function functionVectorReport(
  { effects, plain, each }: HeadEffects,
  best: readonly (Head & { readonly value: number })[],
  about: About,
): Report {
  const [first] = best;
  const chosen: TextTable = {
    title: 'Heads that the vector is made of',
    columns: [...numbers(0, 'layer', 'head'), ...numbers(4, 'effect')],
    rows: best.map(({ layer, head, value }) => [layer, head, value]),
    notes: [
      `Effect of a head: rise of the right answer's probability, from ${plain.toFixed(4)}, with its mean state in ${counted(each.length, 'prompt')} with shuffled labels.`,
    ],
  };
  const cells = effects.heads.map(({ layer, head }, i) => ({ layer, at: head, value: effects.values[i] as number }));
  const all = layerTable('Effect of every head', cells, (head) => `head ${head}`, 4);
  return {
    ...about,
    ...(first && { headline: `${first.value.toFixed(4)} by layer ${first.layer}, head ${first.head}` }),
    blocks: [
      { kind: 'table', name: 'heads', heading: 'The heads with the largest effects', table: chosen },
      { kind: 'table', name: 'effects', heading: 'All heads', table: all },
    ],
  };
}

/** The report of an ablation: what the metric is without each part. */
export function ablationReport({ plain, without }: Ablation, metric: string, about: About): Report {
  const sorted = [...without].sort((a, b) => a.value - b.value || a.layer - b.layer);
  const withHeads = without.some(({ head }) => head !== undefined);
  const table: TextTable = {
    title: `${metric} without a part, the lowest first`,
    columns: [...numbers(0, 'layer', ...(withHeads ? ['head'] : [])), ...numbers(4, 'without it', 'change')],
    rows: sorted.map(({ layer, head, value }) => [layer, ...(withHeads ? [head] : []), value, value - plain]),
    notes: [`With everything: ${plain.toFixed(4)}. Means over the items.`],
  };
  return { ...about, blocks: [{ kind: 'table', name: 'ablation', heading: 'Without one part at a time', table }] };
}

/** The report of a direct logit attribution. @param inputs what stands at each position; null for a row of a picture */
export function attributionReport(
  { difference, parts }: Attribution,
  inputs: readonly (string | null)[],
  metric: string,
  about: About,
): Report {
  const read = parts.filter(({ position }) => position !== undefined);
  const sorted = parts
    .filter(({ position }) => position === undefined)
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const table: TextTable = {
    title: `Parts of ${metric}, the largest first`,
    columns: [...texts('part'), ...numbers(0, 'layer', 'head'), ...numbers(4, 'adds')],
    rows: sorted.map(({ part, layer, head, value }) => [part, layer, head, value]),
    notes: [
      `${read.length > 0 ? 'With what attention reads they' : 'They'} sum to ${difference.toFixed(4)}, with the scale of the final norm frozen.`,
    ],
  };
  const blocks: Block[] = [
    ...(read.length > 0 ? [readTable(read, inputs, metric)] : []),
    { kind: 'table', name: 'attribution', heading: 'What each part adds', table },
  ];
  return { ...about, headline: `${metric} ${difference.toFixed(2)}`, blocks };
}

/** Attention by layer and the position that it reads. */
function readTable(parts: readonly LogitPart[], inputs: readonly (string | null)[], metric: string): Block {
  const cells = parts.map(({ layer = 0, position = 0, value }) => ({ layer, at: position, value }));
  const name = (position: number) => {
    const input = inputs[position];
    return `${position} ${typeof input === 'string' ? visibleText(input) : 'picture'}`;
  };
  const title = `What attention adds to ${metric}, by layer and the position that it reads`;
  const table = layerTable(title, cells, name, 3);
  return { kind: 'table', name: 'positions', heading: 'Where attention reads it', table };
}

/** Values by layer, the last one on top, and by what they are at; a cell without a value is empty. */
function layerTable(
  title: string,
  cells: readonly { readonly layer: number; readonly at: number; readonly value: number }[],
  nameOf: (at: number) => string,
  digits: number,
): TextTable {
  const layers = ascending(cells.map(({ layer }) => layer));
  const columns = ascending(cells.map(({ at }) => at));
  const values = new Map(cells.map(({ layer, at, value }) => [`${layer} ${at}`, value]));
  return {
    title,
    columns: [...numbers(0, 'layer'), ...numbers(digits, ...columns.map(nameOf))],
    rows: layers.reverse().map((layer) => [layer, ...columns.map((at) => values.get(`${layer} ${at}`))]),
    shade: [smallest([0, ...values.values()]), largest([0, ...values.values()])],
    notes: [],
  };
}
