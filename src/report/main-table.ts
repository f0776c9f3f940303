import {
  type AnsweredQuery,
  CONDITIONS,
  type Condition,
  type MainTableOptions,
  type MainTableResult,
  type PromptCell,
  type SweepCell,
} from '../evaluation/main-table.js';
import { differenceInterval, type Estimate, wilsonInterval } from '../evaluation/statistics.js';
import { accuracyTable, observationsOf, type Score, type Table } from '../evaluation/tables.js';
import type { Figure } from './figure.js';
import type { Report, WorkedExample } from './report.js';

/** The lenient and the strict table of a finished run. */
export function mainTables(
  answers: readonly AnsweredQuery[],
  options: MainTableOptions,
  notes: readonly string[],
): Table[] {
  const conditions = CONDITIONS.filter((condition) => answers.some((answer) => answer.condition === condition));
  return (['lenient', 'strict'] as const).map((score) =>
    accuracyTable(answers, {
      title: `Accuracy on ${options.queries} queries (${score} score)`,
      score,
      conditions,
      tasks: options.tasks,
      notes: [...notes, describeDifferences(textPatchDifferences(answers, score))],
    }),
  );
}

/** How much better (or worse) Text Patch is than a condition, on the same queries. */
export interface Difference extends Estimate {
  than: Condition;
}

/** Text Patch against the same examples in the prompt and against the controls: the claims of the experiment. */
export function textPatchDifferences(answers: readonly AnsweredQuery[], score: Score): Difference[] {
  const of = (condition: Condition) =>
    observationsOf(
      answers.filter((a) => a.condition === condition),
      score,
    );
  const patched = of('Text Patch');
  return (['Text Prompt', 'Random Vector Patch', 'Wrong Task Patch'] as const).map((than) => ({
    than,
    ...differenceInterval(patched, of(than)),
  }));
}

function describeDifferences(differences: readonly Difference[]): string {
  const signed = (x: number) => `${x < 0 ? '−' : '+'}${Math.abs(x).toFixed(2)}`;
  const parts = differences.map(
    ({ than, value, low, high }) => `${than} ${signed(value)} (${signed(low)} to ${signed(high)})`,
  );
  return `Text Patch minus, mean over tasks, paired by query: ${parts.join(', ')}.`;
}

/** Validation accuracy by layer, one panel a task, with the prompts of examples as dotted lines. */
export function sweepFigure({ sweep, prompts, layer }: MainTableResult, options: MainTableOptions): Figure {
  const conditions = [...new Set(sweep.map((cell) => cell.condition))];
  const layers = [...new Set(sweep.map((cell) => cell.layer))];
  const baselines = [...new Set(prompts.map((cell) => cell.condition))];
  return {
    title: `Accuracy on ${options.queries} queries by patched layer`,
    xLabel: 'layer (0-based block output)',
    yLabel: 'validation accuracy',
    panels: options.tasks.map((task) => ({
      title: task,
      series: conditions.map((label) => ({
        label,
        points: layers.map((x) => {
          const { value, low, high } = pooled(
            sweep.filter((c) => c.task === task && c.condition === label && c.layer === x),
          );
          return { x, y: value, low, high };
        }),
      })),
      baselines: baselines.map((label) => ({
        label,
        y: pooled(prompts.filter((c) => c.task === task && c.condition === label)).value,
      })),
      verticals: [{ label: `layer ${layer}`, x: layer }],
    })),
    notes: [
      `Lenient score; ${options.validation} validation items, seeds ${options.seeds.join(', ')}. Bands: 95 % Wilson intervals of the pooled queries,`,
      'which seeds share in part, so they are a little too narrow. Vertical line: the layer used for the test queries.',
    ],
  };
}

function pooled(cells: readonly Pick<SweepCell | PromptCell, 'n' | 'correct'>[]) {
  const n = cells.reduce((sum, cell) => sum + cell.n, 0);
  const correct = cells.reduce((sum, cell) => sum + cell.correct, 0);
  return { value: correct / n, ...wilsonInterval(correct, n) };
}

/** Everything that a finished run has to show. */
export function mainTableReport(
  { tables, figure, examples }: { tables: readonly Table[]; figure: Figure; examples: readonly WorkedExample[] },
  about: Pick<Report, 'title' | 'introduction' | 'provenance'>,
): Report {
  const names = ['lenient', 'strict'];
  return {
    ...about,
    blocks: [
      ...tables.map((table, i) => {
        const name = names[i] as string;
        return { kind: 'table', name, heading: `Accuracy, ${name} score`, table } as const;
      }),
      { kind: 'curves', name: 'layer-sweep', heading: 'Layer sweep on validation items', figure },
      { kind: 'examples', name: 'examples', heading: 'Worked examples', examples },
    ],
  };
}

/** The first test query of each task under the first seed: chosen before any answer is known. */
export function workedExamples(
  answers: readonly AnsweredQuery[],
  options: MainTableOptions,
  pictureOf: (task: string, item: string) => string | undefined,
): WorkedExample[] {
  return options.tasks.flatMap((task) => {
    const own = answers.filter((answer) => answer.task === task && answer.seed === options.seeds[0]);
    const item = own[0]?.item;
    const same = own.filter((answer) => answer.item === item && answer.condition !== 'Random');
    const [first] = same;
    if (item === undefined || first === undefined) return [];
    const picture = options.queries === 'image' ? pictureOf(task, item) : undefined;
    return {
      task,
      query: picture?.split(/[\\/]/).at(-1) ?? item,
      ...(picture && { picture }),
      expected: first.expected,
      answers: CONDITIONS.flatMap((condition) => {
        const answer = same.find((a) => a.condition === condition);
        return answer ? { condition, answer: answer.answer.trim(), correct: answer.strict === true } : [];
      }),
    };
  });
}
