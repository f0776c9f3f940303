import { join } from 'node:path';
import type { Bars, TextTable, WorkedExample } from '../report/report.js';
import { displayWidth, formatCell, tableToText, wrap } from '../report/tables.js';
import type { Table } from '../stats/tables.js';
import type { EvalResult } from './eval-protocol.js';

/** Most lines of a summary, so that it fits on a screen; the rest is in the report. */
const MOST_LINES = 50;
const MOST_BARS = 16;
/** Of the conversation with the model. */
const LONGEST_ANSWER = 30;

/**
 * What the terminal shows of a finished experiment: the effect in a sentence, a bar per condition, the patch next to the prompt, an
 * example of each of its cells, and the caveats.
 *
 * @param width columns of the terminal
 */
export function summaryOf(result: EvalResult, width: number): string {
  const { introduction, bars, caveats, folder, report } = result;
  const table = result.tables.find(({ name }) => name === 'patch-and-prompt')?.table;
  const ends = [`More tables: ${join(folder, 'tables')}, figures: ${join(folder, 'figures')}`, `Report: ${report}`];
  const parts = [
    introduction.flatMap((text) => wrap(text, width)),
    bars ? barLines(bars, width) : [],
    table ? tableLines(table, width) : [],
    exampleLines(result.examples, width),
  ].filter((lines) => lines.length > 0);
  const shown = parts.flatMap((lines) => [...lines, '']);
  const room = MOST_LINES - shown.length - ends.length - 1;
  return `${[...shown, ...listOf(caveats, width, room), ...ends].join('\n')}\n`;
}

function tableLines(table: Table | TextTable, width: number): string[] {
  const [title = '', ...lines] = tableToText({ ...table, notes: [] })
    .trimEnd()
    .split('\n');
  return [...wrap(title, width), ...lines];
}

/** `███▒▒ 0.55 [0.52, 0.58]`: filled to the lower end of the interval, shaded to the upper end. */
function barLines({ title, xLabel, bars }: Bars, width: number): string[] {
  const shown = bars.slice(0, MOST_BARS);
  const names = Math.max(...shown.map(({ label }) => displayWidth(label)));
  const size = Math.max(10, Math.min(50, width - names - 22));
  const more = bars.length - shown.length;
  return [
    cut(`${title}: ${xLabel} (▒: 95 % interval)`, width),
    ...shown.map(({ label, value, low, high }) => {
      const [from, to] = [low, high].map((share) => Math.round(share * size)) as [number, number];
      const bar = '█'.repeat(from) + '▒'.repeat(Math.max(1, to - from));
      const numbers = formatCell({ value, low, high, n: 0, items: 0 });
      return `${padded(label, names)}  ${padded(bar, size + 1)} ${numbers}`;
    }),
    ...(more > 0 ? [`and ${more} more, in the report`] : []),
  ];
}

/** The first example of each cell. */
function exampleLines(examples: readonly WorkedExample[], width: number): string[] {
  const firsts = examples.filter(({ cell }, i) => examples.findIndex((other) => other.cell === cell) === i);
  const lines = firsts.flatMap(({ cell, task, query, expected, answers }) => {
    if (cell === undefined) return [];
    const said = answers.slice(0, 2).map(({ condition, answer }) => `${condition} ${quoted(answer)}`);
    return [`  ${cell}: ${task}, ${query} -> ${expected}`, `    ${said.join(', ')}`];
  });
  return lines.length > 0 ? ['Examples, drawn at random:', ...lines.map((line) => cut(line, width))] : [];
}

function listOf(caveats: readonly string[], width: number, room: number): string[] {
  const lines = caveats.flatMap((text) => wrap(text, width - 2).map((line, i) => `${i === 0 ? '- ' : '  '}${line}`));
  if (lines.length === 0) return [];
  if (room < 3) return ['Caveats: in the report', ''];
  const shown = lines.length <= room - 1 ? lines : [...lines.slice(0, room - 2), '  ... and more, in the report'];
  return ['Caveats:', ...shown, ''];
}

const padded = (text: string, width: number): string => text + ' '.repeat(Math.max(0, width - displayWidth(text)));
const quoted = (answer: string): string => JSON.stringify(cut(answer, LONGEST_ANSWER));

function cut(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join('')}…`;
}
