import type { Ablation } from '../circuits/ablate.js';
import type { Attribution } from '../circuits/attribution.js';
import type { HeadMap } from '../circuits/heads.js';
import type { PatchMap } from '../circuits/patch-layers.js';
import type { Block, Report, TextTable } from './report.js';
import { visibleText } from './visible.js';

type About = Pick<Report, 'title' | 'introduction' | 'provenance'>;

/** What a metric is called where its values are shown. */
export interface Measured {
  /** Such as `logit of " Lima" - logit of " Tokyo"`. */
  readonly metric: string;
  /** The metric of the clean prompt and of the corrupt one. */
  readonly clean: number;
  readonly corrupt: number;
}

/** The report of an activation patching map: layers x positions. */
export function patchMapReport(map: PatchMap, inputs: readonly string[], metric: string, about: About): Report {
  const columns = map.positions.map((position, p) => `${position} ${visibleText(inputs[p] ?? '')}`);
  const rows = map.layers.map((layer) => [layer, map.positions.map((position) => map.at(layer, position))] as const);
  return mapReport({ metric, clean: map.clean, corrupt: map.corrupt }, { columns, rows, unit: 'position' }, about);
}

/** The report of patching by head: layers x heads. */
export function headMapReport(map: HeadMap, measured: Measured, about: About): Report {
  const heads = [...new Set(map.heads.map(({ head }) => head))].sort((a, b) => a - b);
  const layers = [...new Set(map.heads.map(({ layer }) => layer))];
  const rows = layers.map((layer) => [layer, heads.map((head) => map.at(layer, head))] as const);
  return mapReport(measured, { columns: heads.map((head) => `head ${head}`), rows, unit: 'head' }, about);
}

interface Grid {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly [layer: number, values: readonly number[]])[];
  readonly unit: string;
}

function mapReport({ metric, clean, corrupt }: Measured, { columns, rows, unit }: Grid, about: About): Report {
  const values = rows.flatMap(([, row]) => row);
  const furthest = values.reduce(
    (best, value) => (Math.abs(value - corrupt) > Math.abs(best - corrupt) ? value : best),
    corrupt,
  );
  const [layer, row] = rows.find(([, one]) => one.includes(furthest)) ?? [0, []];
  const place = columns[row.indexOf(furthest)] ?? '';
  const table: TextTable = {
    title: `${metric}, by layer and ${unit}`,
    columns: [{ name: 'layer', digits: 0 }, ...columns.map((name) => ({ name, digits: 3 }))],
    rows: [...rows].reverse().map(([l, one]) => [l, ...one]),
    shade: [Math.min(corrupt, ...values), Math.max(corrupt, ...values)],
    notes: [
      `Clean prompt ${clean.toFixed(3)}, corrupt prompt ${corrupt.toFixed(3)}: each number is the corrupt prompt with one patch.`,
    ],
  };
  return {
    ...about,
    headline: `${furthest.toFixed(2)} at layer ${layer}, ${place} (clean ${clean.toFixed(2)}, corrupt ${corrupt.toFixed(2)})`,
    blocks: [{ kind: 'table', name: 'map', heading: 'One patch at a time', table }],
  };
}

/** The report of an ablation: what the metric is without each part. */
export function ablationReport({ plain, without }: Ablation, metric: string, about: About): Report {
  const sorted = [...without].sort((a, b) => a.value - b.value || a.layer - b.layer);
  const withHeads = without.some(({ head }) => head !== undefined);
  const table: TextTable = {
    title: `${metric} without a part, the lowest first`,
    columns: [
      { name: 'layer', digits: 0 },
      ...(withHeads ? [{ name: 'head', digits: 0 }] : []),
      { name: 'without it', digits: 4 },
      { name: 'change', digits: 4 },
    ],
    rows: sorted.map(({ layer, head, value }) => [layer, ...(withHeads ? [head] : []), value, value - plain]),
    notes: [`With everything: ${plain.toFixed(4)}. Means over the items.`],
  };
  return { ...about, blocks: [{ kind: 'table', name: 'ablation', heading: 'Without one part at a time', table }] };
}

/** The report of a direct logit attribution. */
export function attributionReport({ difference, parts }: Attribution, metric: string, about: About): Report {
  const sorted = [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const table: TextTable = {
    title: `Parts of ${metric}, the largest first`,
    columns: [{ name: 'part' }, { name: 'layer', digits: 0 }, { name: 'head', digits: 0 }, { name: 'adds', digits: 4 }],
    rows: sorted.map(({ part, layer, head, value }) => [part, layer, head, value]),
    notes: [`They sum to ${difference.toFixed(4)}, with the scale of the final norm frozen.`],
  };
  const blocks: Block[] = [{ kind: 'table', name: 'attribution', heading: 'What each part adds', table }];
  return { ...about, headline: `${metric} ${difference.toFixed(2)}`, blocks };
}
