import { SCORES } from '../stats/tables.js';
import { XpatchError } from '../util/errors.js';
import type { ResultLine } from './types.js';

/**
 * A custom score: what an answer is worth, as a number (true is 1), or undefined if it says nothing. It sees the whole
 * line: answer, expected answer, item, task.
 */
export type Scorer = (line: ResultLine) => number | boolean | undefined;

/**
 * The lines with further scores, which tables and comparisons then have too. The lines of a run hold everything that a score may depend
 * on, so any run can be rescored without its model.
 *
 * @param scorers by name: small letters, digits and hyphens
 * @throws {XpatchError} INVALID_ARGUMENT for a name that is taken or invalid, and for a score that is not a finite number
 */
export function scoreLines(lines: readonly ResultLine[], scorers: Readonly<Record<string, Scorer>>): ResultLine[] {
  const named = Object.entries(scorers);
  for (const [name] of named) {
    if (/^[a-z][a-z0-9-]{0,31}$/.test(name) && !SCORES.includes(name as (typeof SCORES)[number])) continue;
    const message = `${JSON.stringify(name)} cannot name a score: use lower-case letters, digits and hyphens, and none of ${SCORES.join(', ')}.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  return lines.map((line) => {
    const own = named.flatMap(([name, scorer]): [string, number][] => {
      const score = scorer(line);
      if (score === undefined) return [];
      if (Number.isFinite(Number(score))) return [[name, Number(score)]];
      const message = `The score ${name} of ${JSON.stringify(line.answer)} is ${score}: a score must be a finite number, true or false.`;
      throw new XpatchError('INVALID_ARGUMENT', message);
    });
    return own.length > 0 ? { ...line, own: { ...line.own, ...Object.fromEntries(own) } } : line;
  });
}
