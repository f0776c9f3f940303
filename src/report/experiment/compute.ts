import type { Experiment } from '../../experiment/types.js';
import { type ComputePart, type ComputeResult, computeOf, computeUnits, type WayCost } from '../../studies/compute.js';
import { counted } from '../../util/counted.js';
import type { Report, TextTable } from '../report.js';
import type { StudyKind } from '../study-kind.js';
import { paperBlocks } from './paper.js';

/** The study in the folder of a run. */
export const compute: StudyKind<Experiment, ComputePart> = {
  units: (context, { tasks, seeds, query, style, template, shots, test: queries }, events) => {
    const [task, seed] = [tasks[0] as string, seeds[0] as number];
    return computeUnits(context, { task, seed, query, style, template, shots, queries }, events);
  },
  repeatable: false,
  report: (parts, { preset }, { title, notes, provenance }) =>
    computeReport(computeOf(parts), { title, preset, notes, provenance }),
};

/** Time and memory of prompting, patching and the bare query, next to the paper's. */
function computeReport(
  result: ComputeResult,
  about: { title: string; preset?: string | undefined; notes: readonly string[]; provenance: Report['provenance'] },
): Report {
  const { title, preset, notes, provenance } = about;
  return {
    title,
    introduction: notes,
    provenance,
    blocks: [
      { kind: 'table', name: 'compute', heading: 'Time and memory of one query', table: computeTable(result) },
      ...paperBlocks(preset),
    ],
  };
}

/** Medians, with ratios to the query alone. */
export function computeTable(result: ComputeResult): TextTable {
  const { shots, query, repetitions, ways, bytesPerPosition, vectorSeconds, weightBytes } = result;
  const bare = ways.find(({ way }) => way === 'Query alone') as WayCost;
  const number = (name: string, digits: number) => ({ name, digits });
  const unit = 1e6;
  return {
    title: `Time and memory of one query: ${counted(shots, 'text example')}, ${query} queries`,
    columns: [
      { name: 'way' },
      number('seconds', 4),
      number('low', 4),
      number('high', 4),
      number('time ratio', 2),
      number('positions', 0),
      ...(bytesPerPosition === undefined ? [] : [number('KV cache, MB', 3)]),
      number('memory ratio', 2),
    ],
    rows: ways.map(({ way, seconds, positions }) => {
      const cells = quantile(positions, 0.5);
      return [
        way,
        quantile(seconds, 0.5),
        quantile(seconds, 0.25),
        quantile(seconds, 0.75),
        quantile(seconds, 0.5) / quantile(bare.seconds, 0.5),
        cells,
        ...(bytesPerPosition === undefined ? [] : [(cells * bytesPerPosition) / unit]),
        cells / quantile(bare.positions, 0.5),
      ];
    }),
    notes: [
      `Seconds from the tokenised prompt with its picture encoded to the first new token: median and quartiles of ${counted(bare.seconds.length, 'measurement')} (${counted(bare.positions.length, 'query', 'queries')}, ${counted(repetitions, 'round')}, the three ways in turns). Ratios: to the query alone.`,
      `Memory: keys and values of the query's positions. The weights (${(weightBytes / unit).toFixed(1)} MB) are the same for all and left out, and so are buffers, whose size the context fixes beforehand.`,
      `Patch does not count the vector, which is read once for all queries: ${vectorSeconds.toFixed(4)} s here.`,
    ],
  };
}

/** Linear between order statistics. */
function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = q * (sorted.length - 1);
  const below = sorted[Math.floor(place)] as number;
  const above = sorted[Math.ceil(place)] as number;
  return below + (above - below) * (place - Math.floor(place));
}
