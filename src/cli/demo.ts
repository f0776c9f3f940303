import { textPart } from '../experiment/fit.js';
import { defineCommand } from './command.js';
import { EVAL_OPTIONS, runEvaluation } from './eval.js';
import { choice, hidden, vary } from './option.js';

const { model, tasks, seeds, test, output, plan, json, quiet } = EVAL_OPTIONS;

/** `xpatch demo`: another name for `xpatch eval main -m demo`. */
export const demo = defineCommand({
  command: 'demo',
  describe: 'Show cross-modal patching on the shipped model: eval main -m demo',
  options: {
    ...hidden(EVAL_OPTIONS),
    tasks,
    seeds,
    test,
    model: vary(model, { default: 'demo' }),
    output: vary(output, { describe: 'Folder of the run. Defaults to xpatch-demo-DATE-TIME here' }),
    plan,
    json,
    quiet,
    // From before --set.
    queries: choice(['image', 'text'], 'How the input of a query is shown', { hidden: true }),
  },
  more: 'Every option of `xpatch eval` works here too.',
  examples: [
    ['The whole experiment on the shipped model', 'demo'],
    ['A first look', 'demo --seeds 1 --test 20'],
    ['A style that the shipped model was trained on', 'demo --style noto'],
    ['Text queries of a language model', 'demo -m smollm2-135m'],
    ['More experiments', 'eval'],
  ],
  run: async ({ queries, ...args }, terminal) => {
    // Spelt out, so that a model without a picture encoder is refused.
    const set = [...(queries === 'image' ? ['query=image'] : []), ...(args.set ?? [])];
    await runEvaluation('main', { ...args, set }, terminal, {
      name: 'demo',
      whole: true,
      // What a model without a picture encoder is asked.
      adapt: (loaded) =>
        queries === 'text' ? { ...loaded, experiment: textPart(loaded.experiment).experiment } : loaded,
    });
  },
});
