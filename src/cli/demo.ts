import { textPart } from '../experiment/fit.js';
import type { Modality } from '../tasks/prompts.js';
import { defineCommand } from './command.js';
import { usageError } from './errors.js';
import { type EvalArguments, evalOptions, runEvaluation } from './eval.js';
import { parseTasks } from './experiment.js';
import { textOption, wholeOption } from './options.js';

interface DemoArguments extends Omit<EvalArguments, 'experiment'> {
  queries?: Modality;
  tasks?: string;
  seeds?: string;
  style?: string;
  test?: number;
}

/** `xpatch demo`: another name of `xpatch eval main -m demo`. */
export const demo = defineCommand<DemoArguments>({
  command: 'demo',
  describe: 'Show cross-modal patching on the shipped model: eval main -m demo',
  options: (yargs) =>
    evalOptions(yargs, 'demo', 'xpatch-demo-DATE-TIME')
      // Settings by names of their own, from before --set.
      .option('queries', { ...textOption('queries', ''), choices: ['image', 'text'] as const, hidden: true })
      .option('tasks', textOption('tasks', '', { hidden: true }))
      .option('seeds', textOption('seeds', '', { hidden: true }))
      .option('style', textOption('style', '', { hidden: true }))
      .option('test', wholeOption('test', 1, '', { hidden: true })),
  examples: [
    ['The whole experiment on the shipped model', 'demo'],
    ['A first look', 'demo --set "seeds=[1]" --set test=20'],
    ['A style that the shipped model was trained on', 'demo --set style=noto'],
    ['Text queries of a language model', 'demo -m smollm2-135m'],
    ['More experiments', 'eval'],
  ],
  run: async (args, terminal) => {
    const { queries, set = [] } = args;
    const settings = await settingsOf(args);
    await runEvaluation({ ...args, experiment: 'main', set: [...settings, ...set] }, terminal, {
      name: 'demo',
      whole: true,
      // What a model without a picture encoder is asked.
      adapt: (loaded) =>
        queries === 'text' ? { ...loaded, experiment: textPart(loaded.experiment).experiment } : loaded,
    });
  },
});

async function settingsOf({ queries, tasks, seeds, style, test }: DemoArguments): Promise<string[]> {
  const settings = {
    // Spelt out, so that a model without a picture encoder is refused.
    query: queries === 'image' ? queries : undefined,
    tasks: tasks === undefined ? undefined : await parseTasks(tasks),
    seeds: seeds === undefined ? undefined : parseSeeds(seeds),
    style,
    test,
  };
  return Object.entries(settings).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${JSON.stringify(value)}`],
  );
}

function parseSeeds(text: string): number[] {
  const seeds = text.split(',').map((item) => {
    if (/^\s*\d{1,15}\s*$/.test(item)) return Number(item);
    throw usageError(`--seeds takes whole numbers with commas, such as 1,2,3; ${JSON.stringify(item)} is none.`);
  });
  if (new Set(seeds).size === seeds.length) return seeds;
  throw usageError('--seeds repeats one. Name each one once.');
}
