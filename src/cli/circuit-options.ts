import { logitDifference, type Metric, tokenProbability } from '../circuits/measure.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, flag, grouped, text } from './option.js';

/** What the commands of `circuit` measure. */
export const METRIC_OPTIONS = grouped('Answer', {
  right: text('Token of the right answer, as it follows the prompt: " Lima"', { value: 'TOKEN' }),
  wrong: text(
    'Token of a wrong answer: measures the difference of their logits instead of the probability of --right',
    { value: 'TOKEN' },
  ),
});
export const BY_HEAD = flag('By attention head');

/** The metric that the arguments ask for, and its name. */
export function metricOf({ right, wrong }: ArgumentsOf<typeof METRIC_OPTIONS>): { metric: Metric; name: string } {
  if (right === undefined) {
    throw usageError('Name the right answer: --right " Lima", and --wrong " Tokyo" for a difference.');
  }
  if (wrong === undefined) return { metric: tokenProbability(right), name: `probability of ${JSON.stringify(right)}` };
  return {
    metric: logitDifference(right, wrong),
    name: `logit of ${JSON.stringify(right)} - ${JSON.stringify(wrong)}`,
  };
}
