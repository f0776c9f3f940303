// What the terminal shows of a finished experiment.
import { describe, expect, test } from '@jest/globals';
import type { EvalResult } from '../../src/cli/eval-protocol.js';
import { summaryOf } from '../../src/cli/eval-summary.js';
import type { Bars } from '../../src/report/report.js';
import { displayWidth } from '../../src/report/tables.js';

const bar = (label: string, value: number): Bars['bars'][number] => {
  return { label, group: 'patch', value, low: Math.max(0, value - 0.1), high: Math.min(1, value + 0.1) };
};
const CELLS = ['only the patch right', 'only the prompt right', 'both right', 'neither right'];

const result = (nBars: number, caveats: readonly string[]): EvalResult => ({
  folder: 'run',
  report: 'run/report.html',
  model: {} as EvalResult['model'],
  experiment: {} as EvalResult['experiment'],
  layers: [3],
  tables: [
    {
      name: 'patch-and-prompt',
      heading: 'Text Patch and Text Prompt',
      table: {
        title: 'Text Patch and Text Prompt on the same queries (strict score)',
        columns: ['', 'Text Prompt right', 'Text Prompt wrong', 'all'].map((name) => ({ name })),
        rows: [
          ['Text Patch right', 299, 474, 773],
          ['Text Patch wrong', 3, 622, 625],
          ['all', 302, 1096, 1398],
        ],
        notes: ['A note.'],
      },
    },
  ],
  examples: CELLS.flatMap((cell) =>
    ['a', 'b'].map((query) => ({
      cell,
      task: 'country-capital',
      query,
      expected: 'Lima',
      answers: ['Text Prompt', 'Text Patch', 'No Context'].map((condition) => ({
        condition,
        answer: `${condition} ${'very '.repeat(20)}`,
        correct: false,
      })),
    })),
  ),
  figures: [],
  introduction: ['The effect in one sentence, which may be so long that it has to be broken into more than one line.'],
  bars: {
    title: 'Accuracy on image queries',
    xLabel: 'strict score',
    bars: Array.from({ length: nBars }, (_, i) => bar(`Condition ${i}`, i / Math.max(1, nBars - 1))),
  },
  caveats,
});

describe('summary of an experiment', () => {
  test.each([
    [12, 1, 80],
    [12, 40, 80],
    [60, 40, 60],
    [1, 0, 100],
  ])('%i conditions and %i caveats: at most 50 lines of %i columns', (nBars, nCaveats, width) => {
    const caveats = Array.from({ length: nCaveats }, (_, i) =>
      `Caveat ${i} is something that has to be said. `.repeat(3).trim(),
    );
    const lines = summaryOf(result(nBars, caveats), width).trimEnd().split('\n');
    expect(lines.length).toBeLessThanOrEqual(50);
    for (const line of lines) expect(displayWidth(line)).toBeLessThanOrEqual(width);
    expect(lines.at(-1)).toBe('Report: run/report.html');
    expect(lines[0]).toMatch(/^The effect in one sentence/);
    for (const cell of CELLS) expect(lines.filter((line) => line.trim().startsWith(`${cell}: `))).toHaveLength(1);
    expect(lines.filter((line) => /^Text Patch wrong +3 +622 +625$/.test(line))).toHaveLength(1);
    if (nCaveats > 0) expect(lines.filter((line) => line === 'Caveats:')).toHaveLength(1);
  });

  test('a bar is filled to the lower end of its interval and shaded to the upper one', () => {
    const lines = summaryOf(result(3, []), 90).split('\n');
    const half = lines.find((line) => line.startsWith('Condition 1 ')) ?? '';
    expect(half).toMatch(/^Condition 1 {2}█{20}▒{10} +0\.50 \[0\.40, 0\.60\]$/);
    expect(lines.find((line) => line.startsWith('Condition 0 '))).toMatch(/^Condition 0 {2}▒{5} +0\.00/);
  });
});
