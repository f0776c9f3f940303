import { rightAnswers } from '../tasks/answers.js';
import { lenientMatch, strictMatch } from './scoring.js';
import { type Experiment, keyOf, type ResultLine } from './types.js';

const isRank = (value: number) => Number.isSafeInteger(value) && value >= 0;
const isDistance = (value: number) => Number.isFinite(value) && value >= -ROUNDING;
const ROUNDING = 1e-4;

/** What the numbers of a line can be, whatever the model. */
const RANGES: readonly (readonly [keyof ResultLine, (value: number) => boolean])[] = [
  ['probability', (value) => value >= 0 && value <= 1 + ROUNDING],
  ['logLikelihood', (value) => Number.isFinite(value) && value <= ROUNDING],
  ['rank', isRank],
  ['answerRank', isRank],
  ['kl', isDistance],
  ['delta', isDistance],
];

/** Why the scores of a line cannot be those of its answer, as far as can be told without a model; undefined if they can. */
export function scoreProblem(line: ResultLine, options: Pick<Experiment, 'ignoreCase'>): string | undefined {
  const { stage, answer, firstToken, expected, also, lenient, strict, cut } = line;
  const all = rightAnswers({ output: expected, ...(also && { also }) });
  const right = stage === 'test' ? !cut && strictMatch(answer, all, options) : undefined;
  if (lenient !== lenientMatch(firstToken, all, options) || strict !== right) {
    return `the score of ${keyOf(line)} does not match its answer`;
  }
  const [field] =
    RANGES.find(([name, fits]) => line[name] !== undefined && !(typeof line[name] === 'number' && fits(line[name]))) ??
    [];
  return field && `${keyOf(line)} has a ${field} of ${JSON.stringify(line[field])}, which is impossible`;
}
