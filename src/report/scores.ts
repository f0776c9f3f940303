import type { OptionScore } from '../experiment/score-options.js';
import { counted } from '../util/counted.js';
import { numbers, texts } from './columns.js';
import type { Report, TextTable } from './report.js';
import { visibleText } from './visible.js';

/** An item with the scores of its options. */
export interface ScoredItem {
  /** Of the file. */
  readonly line: number;
  readonly best: string;
  /** The right ones, if the file says. */
  readonly answers?: readonly string[];
  readonly right?: boolean;
  readonly options: readonly OptionScore[];
}

/** Items that a page lists. */
const LISTED = 500;

/** The report of scored options: which one is best, and by how much. @param by what the best option has most of */
export function scoresReport(
  items: readonly ScoredItem[],
  by: 'logLikelihood' | 'perToken',
  about: Pick<Report, 'title' | 'introduction' | 'headline' | 'provenance'>,
): Report {
  const shown = items.slice(0, LISTED);
  const [unit, more] = by === 'perToken' ? ['nats a token', 'mean'] : ['nats', 'sum'];
  const table: TextTable = {
    title: `Best option of ${counted(items.length, 'item')}`,
    columns: [
      ...numbers(0, 'line'),
      ...texts('best'),
      ...numbers(2, unit, 'before the next'),
      ...texts('answer', 'right'),
    ],
    rows: shown.map(({ line, best, answers, right, options }) => {
      const [first = 0, second] = options.map((option) => option[by]).sort((a, b) => b - a);
      const ahead = second === undefined ? undefined : first - second;
      return [
        line,
        visibleText(best),
        first,
        ahead,
        answers && visibleText(answers.join(' | ')),
        right === undefined ? undefined : right ? 'yes' : 'no',
      ];
    }),
    notes: [
      `${unit}: the ${more} of the log-probabilities of the option's tokens.`,
      ...(shown.length < items.length ? [`The first ${shown.length} of ${items.length}; -o writes all.`] : []),
    ],
  };
  return { ...about, blocks: [{ kind: 'table', name: 'items', heading: 'Items', table }] };
}
