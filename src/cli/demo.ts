import { join } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import { MAIN_TABLE_DEFAULTS } from '../evaluation/main-table.js';
import { PROMPT_GAP_NOTES, SHIPPED_NOTES } from '../model/resolve.js';
import { textPatchDifferences } from '../report/main-table.js';
import type { WorkedExample } from '../report/report.js';
import { tableToText } from '../report/tables.js';
import type { Modality } from '../tasks/prompts.js';
import { listTasks } from '../tasks/task.js';
import {
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  printJson,
  withSession,
} from './common.js';
import { usageError } from './errors.js';
import { textOption, wholeOption, withExamples } from './options.js';
import { commandLine } from './report-run.js';

interface DemoArguments extends ModelArguments, OutputArguments {
  queries?: Modality;
  tasks?: string;
  seeds: string;
  style: string;
  test: number;
  output?: string;
}

/** `xpatch demo`: the paper's main table with controls, on the shipped model or another one. */
export const demo: CommandModule<unknown, DemoArguments> = {
  command: 'demo',
  describe: 'Show cross-modal patching: the main table, the layer sweep and worked examples',
  builder: (yargs) =>
    withExamples(
      outputOptions(modelOptions(yargs, 'demo'))
        .option('queries', {
          ...textOption('queries', 'What is asked about. Defaults to image, or text without a picture encoder'),
          choices: ['image', 'text'] as const,
        })
        .option('tasks', textOption('tasks', 'Shipped tasks with commas. Defaults to all six'))
        .option('seeds', textOption('seeds', 'Seeds with commas', { default: MAIN_TABLE_DEFAULTS.seeds.join(',') }))
        .option('style', textOption('style', 'Drawing style of the pictures', { default: MAIN_TABLE_DEFAULTS.style }))
        .option(
          'test',
          wholeOption('test', 1, 'Most test queries a task and seed', { default: MAIN_TABLE_DEFAULTS.test }),
        )
        .option(
          'output',
          textOption('output', 'Folder of the run. Defaults to xpatch-demo-DATE-TIME here', { alias: 'o' }),
        )
        .group(['queries', 'tasks', 'seeds', 'style', 'test', 'output'], 'Experiment:'),
      [
        ['The whole table on the shipped model', 'demo'],
        ['A first look', 'demo --seeds 1 --test 20'],
        ['A style that the shipped model was trained on', 'demo --style noto'],
        ['Text queries of a language model', 'demo -m smollm2-135m.gguf'],
      ],
    ) as Argv<unknown> as Argv<DemoArguments>,
  handler: async (args) => {
    const seeds = args.seeds.split(',').map((item) => {
      if (/^\s*\d{1,15}\s*$/.test(item)) return Number(item);
      throw usageError(`--seeds takes whole numbers with commas, such as 1,2,3; ${JSON.stringify(item)} is none.`);
    });
    const tasks = args.tasks?.split(',').map((name) => name.trim()) ?? (await listTasks());
    for (const [name, list] of [
      ['seeds', seeds],
      ['tasks', tasks],
    ] as const) {
      if (new Set<unknown>(list).size !== list.length) throw usageError(`--${name} repeats one. Name each one once.`);
    }
    const folder =
      args.output ?? `xpatch-demo-${new Date().toISOString().slice(0, 19).replace(/[-:]/g, '').replace('T', '-')}`;

    await withSession(args, async ({ model, context, signal, progress }) => {
      // Not imported at the top: --help needs no report.
      const { writeMainTableRun } = await import('../report/main-table-run.js');
      signal.addEventListener('abort', () => progress.note(`stopping; the answers so far stay in ${folder}`));
      const queries = args.queries ?? (model.hasVision ? 'image' : 'text');
      const options = { ...MAIN_TABLE_DEFAULTS, tasks, seeds, queries, style: args.style, test: args.test };
      const command = commandLine();
      const notes = [...(SHIPPED_NOTES[args.model] ?? []), ...(PROMPT_GAP_NOTES[args.model] ?? [])];
      const run = await writeMainTableRun(
        context,
        folder,
        options,
        { command, notes },
        {
          signal,
          onProgress: ({ done, total, stage }) =>
            progress.update(`${done} of ${total} answers, ${stage}`, done / total),
        },
      );
      progress.done();
      const { layer, tables, examples } = run;
      if (args.json) {
        const differences = textPatchDifferences(run.answers, 'lenient');
        printJson({ folder, model: model.identity, options, layer, tables, differences, examples });
      } else {
        const [lenient, strict] = tables.map((table) => tableToText(table));
        process.stdout.write(`${lenient}\n${strict}\n${examples.map(exampleToText).join('\n')}\n`);
        process.stdout.write(
          `Report: ${join(folder, 'report.html')}\nFigure: ${join(folder, 'figures', 'layer-sweep.png')}\n`,
        );
      }
    });
  },
};

/** One task's example: the query and what the model says without and with the patch. */
function exampleToText({ task, query, expected, answers }: WorkedExample): string {
  const said = (name: string) => answers.find((answer) => answer.condition === name)?.answer ?? '';
  return (
    `${task}: ${query} -> ${expected}\n` +
    `  no context ${JSON.stringify(said('No Context'))}, text examples in the prompt ${JSON.stringify(said('Text Prompt'))}, ` +
    `text vector patched in ${JSON.stringify(said('Text Patch'))}\n`
  );
}
