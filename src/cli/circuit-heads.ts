import { edgesTable, headsTable, overlapTable } from '../report/heads.js';
import { tableToText } from '../report/tables.js';
import { headsUnits } from '../studies/heads.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { TASK_OPTIONS, taskPromptsOf } from './experiment.js';
import { vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_OPTIONS, PROMPTS, RUN_FOLDER, TOP, theOne } from './options.js';
import { runStudyCommand } from './report-run.js';

/** `xpatch circuit heads`: whether text and image examples of a task use the same heads. */
export const circuitHeads = defineCommand({
  command: 'heads',
  describe: 'Which heads carry a task shown in text and in pictures, and what the last token has to see',
  options: {
    ...TASK_OPTIONS,
    seeds: vary(TASK_OPTIONS.seeds, { describe: 'Seed of the items and the examples. Defaults to 1' }),
    prompts: vary(PROMPTS, { describe: 'Prompts a task and modality, at least 2', default: 10 }),
    top: vary(TOP, { describe: 'How many of the best heads are compared', default: 10 }),
    output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-heads-DATE-TIME here' }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All tasks', 'circuit heads -m demo'],
    ['A first look', 'circuit heads -m demo --tasks country-capital,food-color --prompts 5'],
  ],
  run: async (args, terminal) => {
    const { seeds, ...read } = await taskPromptsOf(args);
    const seed = theOne('--seeds', seeds) ?? 1;
    await withSession(args, terminal, async (session) => {
      const { prompts, top } = args;
      const options = { ...read, seed, prompts, top };
      const { folder, results, summary } = await runStudyCommand(session, args, {
        study: 'heads',
        units: headsUnits,
        title: `Heads of cross-modal tasks in ${describeModel(session.model.identity)}`,
        options,
        pictures: true,
      });
      const [overlap, best, edges] = [
        overlapTable(results, options),
        headsTable(results, options),
        edgesTable(results),
      ];
      if (args.json) {
        terminal.printJson({ folder, model: session.model.identity, options, overlap, best, edges, cells: results });
      } else {
        terminal.print([overlap, edges, best].map((table) => `${tableToText(table, terminal)}\n`).join('') + summary);
      }
    });
  },
});
