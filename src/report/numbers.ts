import { texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import type { Bars, LensView, Pies, Scatter, TextTable, WorkedExample } from './report.js';
import { csvLine } from './tables.js';

/** Text in parts, so that what is large is never in memory as a whole. */
type Parts = Iterable<string>;

/** One line a point, baseline or vertical line. */
export function* figureToCsv({ panels }: Figure): Parts {
  yield csvLine(['panel', 'kind', 'label', 'x', 'y', 'low', 'high']);
  for (const { title, series, baselines = [], verticals = [] } of panels) {
    for (const { label, points } of series) {
      for (const { x, y, low = '', high = '' } of points) yield csvLine([title, 'curve', label, x, y, low, high]);
    }
    for (const { label, y } of baselines) yield csvLine([title, 'baseline', label, '', y, '', '']);
    for (const { label, x } of verticals) yield csvLine([title, 'vertical', label, x, '', '', '']);
  }
}

/** One line a bar. */
export function* barsToCsv({ bars }: Bars): Parts {
  yield csvLine(['label', 'group', 'value', 'low', 'high']);
  for (const { label, group, value, low, high } of bars) yield csvLine([label, group, value, low, high]);
}

/** One line a slice; the examples are a JSON list. */
export function* piesToCsv({ pies }: Pies): Parts {
  yield csvLine(['pie', 'label', 'count', 'n', 'examples']);
  for (const { title, slices } of pies) {
    const n = slices.reduce((sum, { count }) => sum + count, 0);
    for (const { label, count, examples = [] } of slices) {
      yield csvLine([title, label, count, n, JSON.stringify(examples)]);
    }
  }
}

/** One line a point. */
export function* scatterToCsv({ panels }: Scatter): Parts {
  yield csvLine(['panel', 'x', 'y', 'colour', 'shape', 'label']);
  for (const { title, points } of panels) {
    for (const { x, y, colour, shape, label } of points) yield csvLine([title, x, y, colour, shape, label]);
  }
}

/** One line a cell: what is at the position, the best token, and how sure the distribution is. */
export function* lensToCsv({ lens, inputs }: LensView): Parts {
  const best = ['token', 'text', 'logit', 'probability'];
  yield csvLine(['layer', 'position', 'kind', 'input', ...best, 'entropy', 'kl']);
  for (const [l, row] of lens.cells.entries()) {
    for (const [p, { top, entropy, kl }] of row.entries()) {
      const { kind, text } = inputs[p] as LensView['inputs'][number];
      const { token = '', text: word = '', logit = '', probability = '' } = top[0] ?? {};
      const place = [lens.layers[l] as number, lens.positions[p] as number, kind, text];
      yield csvLine([...place, token, word, logit, probability, entropy, kl]);
    }
  }
}

/** All cells of a lens with what is at each position, and where the pictures and their patches are; without pixels. */
export function* lensToJson({ title, lens, inputs, pictures, notes = [] }: LensView): Parts {
  const { layers, positions, settled, cells } = lens;
  const places = pictures.map(({ picture: { width, height, hash }, first, grid }) => ({
    width,
    height,
    hash,
    first,
    grid,
  }));
  const head = JSON.stringify({ title, notes, layers, positions, settled, inputs, pictures: places });
  yield `${head.slice(0, -1)},"cells":[`;
  for (const [l, row] of cells.entries()) {
    yield l === 0 ? '\n[' : ',\n[';
    for (const [p, cell] of row.entries()) yield `${p === 0 ? '' : ',\n'}${JSON.stringify(cell)}`;
    yield ']';
  }
  yield ']}\n';
}

/** One row an answer. */
export function examplesToTable(title: string, examples: readonly WorkedExample[]): TextTable {
  const grouped = examples.some(({ cell }) => cell !== undefined);
  const columns = ['task', 'query', 'expected', 'condition', 'answer', 'correct'];
  return {
    title,
    columns: texts(...(grouped ? ['cell'] : []), ...columns),
    rows: examples.flatMap(({ cell, task, query, expected, answers }) =>
      answers.map(({ condition, answer, correct }) => [
        ...(grouped ? [cell] : []),
        task,
        query,
        expected,
        condition,
        answer,
        correct ? 'yes' : 'no',
      ]),
    ),
    notes: [],
  };
}
