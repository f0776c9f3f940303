import { isDeepStrictEqual } from 'node:util';
import { linesOf } from './batches.js';
import { majorityAnswer } from './scoring.js';
import { membersOf, type Shard } from './shard.js';
import { conditionsOf, itemsOf, type Study } from './study.js';
import { keyOf, type ResultLine } from './types.js';

/** What is asked, except for the layer of a patch, and what its lines say whatever the model answers. */
interface Query {
  readonly says: Partial<ResultLine>;
  readonly isPatch: boolean;
}

/** Everything that an experiment asks, from its tasks and without a model. */
export class Queries {
  /** How many lines the finished run has. */
  readonly lines: number;
  private readonly all = new Map<string, Query>();

  /** @param shard only the queries of this one; undefined for all */
  constructor(
    study: Pick<Study, 'experiment' | 'cells'>,
    private readonly nLayers: number,
    shard: Shard | undefined,
  ) {
    const { experiment, cells } = study;
    const isMember = membersOf(shard, study, nLayers);
    let lines = 0;
    for (const stage of ['validation', 'test'] as const) {
      for (const cell of cells) {
        const { task, seed, validation } = cell.split;
        for (const asked of conditionsOf(study, stage)) {
          const { name: condition, kind, question } = asked;
          const isPatch = kind === 'patch';
          for (const { input: item, output: expected, also } of itemsOf(cell, stage)) {
            if (!isMember({ stage, task: task.name, seed, item })) continue;
            const rival = question?.includes('{rival}') ? cell.rival?.answers.get(item) : undefined;
            const answer = kind === 'majority' ? { answer: majorityAnswer(validation) ?? '' } : {};
            const says = { domain: task.domain, expected, also, rival, ...answer };
            this.all.set(keyOf({ stage, condition, task: task.name, seed, item }), { says, isPatch });
            lines += linesOf(asked, experiment, stage, nLayers);
          }
        }
      }
    }
    this.lines = lines;
  }

  /** Why a line cannot be an answer to one of them; undefined if it can. */
  problemOf(line: ResultLine): string | undefined {
    const { layer, ...rest } = line;
    const query = this.all.get(keyOf(rest));
    const layerFits = query?.isPatch ? layer !== undefined && layer >= 0 && layer < this.nLayers : layer === undefined;
    if (query === undefined || !layerFits) return `${keyOf(line)} is not one of its queries`;
    const fields = Object.keys(query.says) as (keyof ResultLine)[];
    const field = fields.find((name) => !isDeepStrictEqual(line[name], query.says[name]));
    if (field === undefined) return undefined;
    const [said, known] = [line[field], query.says[field]].map((value) => JSON.stringify(value) ?? 'none');
    return `${keyOf(line)} has ${field} ${said}, but in the task it is ${known}`;
  }
}
