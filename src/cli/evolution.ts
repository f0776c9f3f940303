import { resolveLayers } from '../hooks/points.js';
import { crossingsTable, evolutionFindings, evolutionStatements } from '../report/evolution.js';
import { tableToText } from '../report/tables.js';
import { defaultPieLayers, topClasses } from '../studies/class-curves.js';
import { type EvolutionCell, evolutionUnits } from '../studies/evolution.js';
import { EVOLUTION_CLASSES, type EvolutionClass, type WordClass } from '../studies/evolution-classes.js';
import { requireModalities } from '../studies/modalities.js';
import { didYouMean } from '../util/nearest.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseModalities, readable, TASK_OPTIONS, taskPromptsOf } from './experiment.js';
import { grouped, parsed, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_OPTIONS, PROMPTS, parseTexts, RUN_FOLDER, SPECS } from './options.js';
import { runStudyCommand } from './report-run.js';

/** `xpatch evolution`: what the last delimiter says, from input to task to answer. */
export const evolution = defineCommand({
  command: 'evolution',
  describe: 'Follow input token, task word and answer through the layers',
  options: {
    ...TASK_OPTIONS,
    prompts: vary(PROMPTS, {
      describe: 'Different prompts per task, modality and seed. Defaults to 100',
      group: 'Task',
    }),
    ...grouped('Evolution', {
      specs: vary(SPECS, { describe: 'text, image or text,image. Defaults to what the model can read' }),
      classes: vary(
        parsed('Classes of tokens that the curves compare; NAME=WORD/WORD makes one of your own', parseClasses, {
          value: 'LIST',
        }),
        { default: EVOLUTION_CLASSES.join(',') },
      ),
      layers: vary(LAYERS, {
        describe: 'Layers of the pies, such as 2,4,7. Defaults to a quarter, five eighths and the end',
      }),
      output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-evolution-DATE-TIME here' }),
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All tasks, text and pictures', 'evolution -m demo'],
    ['A first look', 'evolution -m demo --tasks country-capital --prompts 30'],
    ['The three classes of the paper only', 'evolution -m model.gguf --classes input,task,answer'],
    ['With your own class', 'evolution -m model.gguf --classes "input,answer,question=question/query"'],
  ],
  run: async (args, terminal) => {
    const { tasks, ...how } = await taskPromptsOf(args);
    const { classes, layers: chosen, prompts = 100 } = args;
    const wanted = parseModalities(args.specs);
    await withSession(args, terminal, async (session) => {
      const { model, signal } = session;
      const modalities = wanted ?? readable(model);
      requireModalities(model, modalities);
      const pieLayers = chosen ? resolveLayers(chosen, model.info.nLayers) : defaultPieLayers(model.info.nLayers);
      const options = { tasks, modalities, ...how, prompts, classes };
      const { folder, results, summary } = await runStudyCommand(session, args, {
        study: 'evolution',
        units: evolutionUnits,
        title: `Evolution of representations in ${describeModel(model.identity)}`,
        options: { ...options, pieLayers },
        pictures: modalities.includes('image'),
      });
      const findings = await evolutionFindings(results, pieLayers, signal);
      const statements = evolutionStatements(results);
      const crossings = crossingsTable(findings);
      if (args.json) {
        const cells = results.map((cell) => summaryOf(cell, pieLayers));
        const { sets } = findings;
        terminal.printJson({ folder, model: model.identity, options, statements, crossings, cells, sets });
      } else {
        terminal.print(`${tableToText(crossings, terminal)}\n${statements.join('\n')}\n\n${summary}`);
      }
    });
  },
});

/** `input,answer,mine=word/word` */
function parseClasses(text: string, option: string): (EvolutionClass | WordClass)[] {
  const known: readonly string[] = EVOLUTION_CLASSES;
  const classes = parseTexts(text, option).map((entry) => {
    if (known.includes(entry)) return entry as EvolutionClass;
    const [, name, words] = /^([^=]+)=(.+)$/.exec(entry) ?? [];
    if (name !== undefined && words !== undefined && !known.includes(name)) return { name, words: words.split('/') };
    const expected = `some of ${known.join(', ')}, and NAME=WORD/WORD with a name of its own`;
    throw usageError(`--classes takes ${expected}; ${JSON.stringify(entry)} is not one.${didYouMean(entry, known)}`);
  });
  if (classes.length < 2) throw usageError('--classes needs at least two classes to compare.');
  return classes;
}

/** A cell without its prompts. */
function summaryOf(cell: EvolutionCell, pieLayers: readonly number[]) {
  const { readings, ...summary } = cell;
  return {
    ...summary,
    read: readings.length,
    pies: pieLayers.map((layer) => ({ layer, best: topClasses([cell], layer) })),
  };
}
