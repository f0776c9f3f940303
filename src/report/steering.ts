import { numbers, texts } from './columns.js';
import type { Report, TextTable } from './report.js';
import { visibleText } from './visible.js';

/** What a model says with a direction added. */
export interface SteeredAnswer {
  /** Factor on the direction; 0 is the model as it is. */
  readonly strength: number;
  readonly text: string;
  readonly finish: string;
}

/** The report of a steered prompt: the answers side by side, by strength. */
export function steeringReport(
  answers: readonly SteeredAnswer[],
  about: Pick<Report, 'title' | 'introduction' | 'provenance'>,
): Report {
  const table: TextTable = {
    title: 'Answers by strength',
    columns: [...numbers(2, 'strength'), ...texts('answer', 'end')],
    rows: answers.map(({ strength, text, finish }) => [strength, visibleText(text), finish]),
    notes: ['Strength: factor on the direction. 0 is the model without it.'],
  };
  return { ...about, blocks: [{ kind: 'table', name: 'answers', heading: 'Answers', table }] };
}
