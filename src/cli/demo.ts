import { join } from 'node:path';
import { experimentOf } from '../experiment/config.js';
import { textPart } from '../experiment/fit.js';
import type { WorkedExample } from '../report/report.js';
import { tableToText } from '../report/tables.js';
import type { Modality } from '../tasks/prompts.js';
import { defineCommand } from './command.js';
import { type ModelArguments, modelOptions, type OutputArguments, outputOptions } from './common.js';
import { usageError } from './errors.js';
import { commandWith } from './eval.js';
import type { EvalResult } from './eval-protocol.js';
import { runEval } from './eval-run.js';
import { parseTasks } from './experiment.js';
import { folderOption, textOption, wholeOption } from './options.js';
import { timestamp } from './report-run.js';

interface DemoArguments extends ModelArguments, OutputArguments {
  queries?: Modality;
  tasks?: string;
  seeds: string;
  style: string;
  test: number;
  output?: string;
}

/** `xpatch demo`: the preset `main`, the paper's main table with controls, on the shipped model or another one. */
export const demo = defineCommand<DemoArguments>({
  command: 'demo',
  describe: 'Show cross-modal patching: the main table, the layer sweep and worked examples',
  options: (yargs) =>
    outputOptions(modelOptions(yargs, 'demo'))
      .option('queries', {
        ...textOption('queries', 'What is asked about. Defaults to image, or text without a picture encoder'),
        choices: ['image', 'text'] as const,
      })
      .option('tasks', textOption('tasks', 'Shipped tasks with commas. Defaults to all six'))
      .option('seeds', textOption('seeds', 'Seeds with commas', { default: '1,2,3' }))
      .option('style', textOption('style', 'Drawing style of the pictures', { default: 'twemoji' }))
      .option('test', wholeOption('test', 1, 'Most test queries a task and seed', { default: 100 }))
      .option(
        'output',
        folderOption('output', 'Folder of the run. Defaults to xpatch-demo-DATE-TIME here', { alias: 'o' }),
      )
      .group(['queries', 'tasks', 'seeds', 'style', 'test', 'output'], 'Experiment:'),
  examples: [
    ['The whole table on the shipped model', 'demo'],
    ['A first look', 'demo --seeds 1 --test 20'],
    ['A style that the shipped model was trained on', 'demo --style noto'],
    ['Text queries of a language model', 'demo -m smollm2-135m'],
    ['More experiments', 'eval'],
  ],
  run: async (args, terminal) => {
    const { queries, style, test } = args;
    const seeds = args.seeds.split(',').map((item) => {
      if (/^\s*\d{1,15}\s*$/.test(item)) return Number(item);
      throw usageError(`--seeds takes whole numbers with commas, such as 1,2,3; ${JSON.stringify(item)} is none.`);
    });
    if (new Set(seeds).size !== seeds.length) throw usageError('--seeds repeats one. Name each one once.');
    const tasks = args.tasks === undefined ? undefined : await parseTasks(args.tasks);
    const config = { preset: 'main', seeds, style, test, ...(tasks && { tasks }) };
    const loaded = experimentOf(queries === 'image' ? { ...config, query: 'image' } : config, { name: 'main' });
    const asked = queries === 'text' ? { ...loaded, experiment: textPart(loaded.experiment).experiment } : loaded;
    const folder = args.output ?? `xpatch-demo-${timestamp()}`;
    const result = (await runEval(args, terminal, {
      loaded: asked,
      folder,
      resume: commandWith(terminal, folder),
      events: false,
    })) as EvalResult;
    const named = (name: string) => result.tables.filter((table) => table.name === name).map(({ table }) => table);
    const tables = [...named('lenient'), ...named('strict')];
    const { model, experiment, layers, examples, report } = result;
    if (args.json) {
      const [differences] = named('differences-lenient');
      terminal.printJson({ folder, model, options: experiment, layer: layers[0], tables, differences, examples });
    } else {
      const texts = tables.map((table) => tableToText(table));
      terminal.print(`${texts.join('\n')}\n${examples.map(exampleToText).join('\n')}\n`);
      terminal.print(`Report: ${report}\nFigure: ${join(folder, 'figures', 'layer-sweep.png')}\n`);
    }
  },
});

/** One task's example: the query and what the model says without and with the patch. */
function exampleToText({ task, query, expected, answers }: WorkedExample): string {
  const said = (name: string) => answers.find((answer) => answer.condition === name)?.answer ?? '';
  return (
    `${task}: ${query} -> ${expected}\n` +
    `  no context ${JSON.stringify(said('No Context'))}, text examples in the prompt ${JSON.stringify(said('Text Prompt'))}, ` +
    `text vector patched in ${JSON.stringify(said('Text Patch'))}\n`
  );
}
