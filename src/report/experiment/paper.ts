import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { mean } from '../../stats/statistics.js';
import { PACKAGE_ROOT } from '../../util/package-root.js';
import { numbers, texts } from '../columns.js';
import type { Block } from '../report.js';

/** data/paper/tables.json: ours and tested, so it is not validated here. */
interface PaperTables {
  readonly source: string;
  readonly tables: readonly {
    readonly name: string;
    /** Experiments that it is shown with. */
    readonly presets: readonly string[];
    readonly title: string;
    readonly columns: readonly string[];
    readonly notes: readonly string[];
    /** `model` is empty for a row that belongs to none. */
    readonly rows: readonly {
      readonly model: string;
      readonly condition: string;
      readonly values: readonly number[];
    }[];
  }[];
}

/**
 * The paper's own numbers that belong with an experiment: tables of their own, since other models made them.
 *
 * @param preset of the experiment; without one, and for one that the paper does not have, there are none
 */
export function paperBlocks(preset: string | undefined): Block[] {
  if (preset === undefined) return [];
  const { source, tables } = JSON.parse(
    readFileSync(join(PACKAGE_ROOT, 'data', 'paper', 'tables.json'), 'utf8'),
  ) as PaperTables;
  return tables
    .filter(({ presets }) => presets.includes(preset))
    .map(({ name, title, columns, notes, rows }): Block => {
      const models = [...new Set(rows.map(({ model }) => model))].filter((model) => model !== '');
      const whose =
        models.length > 0 ? `other models: ${models.join(', ')}, from the paper` : 'another model, from the paper';
      const digits = rows.every(({ values }) => values.every(Number.isInteger)) ? 0 : 2;
      const hasConditions = rows.some(({ condition }) => condition !== '');
      const hasMean = columns.length > 2;
      return {
        kind: 'table',
        name,
        heading: `From the paper: ${title}`,
        table: {
          title: `${title} (${whose})`,
          columns: [
            ...texts('Model', ...(hasConditions ? ['Condition'] : [])),
            ...numbers(digits, ...columns, ...(hasMean ? ['mean'] : [])),
          ],
          rows: rows.map(({ model, condition, values }) => [
            model || undefined,
            ...(hasConditions ? [condition] : []),
            ...values,
            ...(hasMean ? [mean(values)] : []),
          ]),
          notes: [
            `Source: ${source}. Other models, pictures and items than above: compare the pattern, not the numbers.`,
            ...notes,
            ...(hasMean ? ['The mean was computed here.'] : []),
          ],
        },
      };
    });
}
