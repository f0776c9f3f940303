import type { Experiment } from '../../experiment/types.js';
import { quantile as quantileOf } from '../../stats/statistics.js';
import { type ComputePart, type ComputeResult, computeOf, computeUnits, type WayCost } from '../../studies/compute.js';
import { counted } from '../../util/counted.js';
import { numbers, texts } from '../columns.js';
import type { TextTable } from '../report.js';
import type { StudyKind } from '../study-kind.js';
import { paperBlocks } from './paper.js';

/** The study in the folder of a run. */
export const compute: StudyKind<Experiment, ComputePart> = {
  units: (context, { tasks, seeds, query, style, template, shots, test: queries }, events) => {
    const [task, seed] = [tasks[0] as string, seeds[0] as number];
    return computeUnits(context, { task, seed, query, style, template, shots, queries }, events);
  },
  repeatable: false,
  /** Time and memory of prompting, patching and the bare query, next to the paper's. */
  report: (parts, { preset }, { title, notes, provenance }) => ({
    title,
    introduction: notes,
    provenance,
    blocks: [
      {
        kind: 'table',
        name: 'compute',
        heading: 'Time and memory of one query',
        table: computeTable(computeOf(parts)),
      },
      ...paperBlocks(preset),
    ],
  }),
};

/** Medians, with ratios to the query alone. */
export function computeTable(result: ComputeResult): TextTable {
  const { shots, query, repetitions, ways, bytesPerPosition, vectorSeconds, weightBytes } = result;
  const bare = ways.find(({ way }) => way === 'Query alone') as WayCost;
  const unit = 1e6;
  return {
    title: `Time and memory of one query: ${counted(shots, 'text example')}, ${query} queries`,
    columns: [
      ...texts('way'),
      ...numbers(4, 'seconds', 'low', 'high'),
      ...numbers(2, 'time ratio'),
      ...numbers(0, 'positions'),
      ...numbers(3, ...(bytesPerPosition === undefined ? [] : ['KV cache, MB'])),
      ...numbers(2, 'memory ratio'),
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

/** @param values in any order */
function quantile(values: readonly number[], q: number): number {
  return quantileOf(
    [...values].sort((a, b) => a - b),
    q,
  );
}
