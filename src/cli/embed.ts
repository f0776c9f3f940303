import { resolveLayers } from '../hooks/points.js';
import { tableToText } from '../report/tables.js';
import { requireModalities } from '../studies/modalities.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseModalities, readable, TASK_OPTIONS, taskPromptsOf } from './experiment.js';
import { grouped, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_OPTIONS, PROMPTS, RUN_FOLDER, SPECS, theLayer } from './options.js';
import { runStudyCommand } from './report-run.js';

/** `xpatch embed`: prompts as points, by context and by last delimiter. */
export const embed = defineCommand({
  command: 'embed',
  describe: 'Show whether prompts cluster by task or by modality: t-SNE, PCA, scores',
  options: {
    ...TASK_OPTIONS,
    prompts: vary(PROMPTS, {
      describe: 'Points per task, modality and seed, at least 3. Defaults to 30',
      group: 'Task',
    }),
    ...grouped('Embedding', {
      specs: vary(SPECS, { describe: 'text, image or text,image. Defaults to what the model can read' }),
      layers: vary(LAYERS, { describe: 'Block whose output is shown. Defaults to 23/36 of the depth' }),
      output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-embed-DATE-TIME here' }),
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All tasks, text and pictures', 'embed -m demo'],
    ['Another layer', 'embed -m demo --layers 2'],
  ],
  run: async (args, terminal) => {
    const { tasks, ...how } = await taskPromptsOf(args);
    if (tasks.length < 2) throw usageError('--tasks needs at least two tasks to compare.');
    if (args.prompts !== undefined && args.prompts < 3) throw usageError('--prompts must be a whole number from 3.');
    const wanted = parseModalities(args.specs);
    // Not imported at the top: no other command needs the library behind it.
    const { defaultEmbeddingLayer, embeddingOf, embeddingUnits } = await import('../studies/embedding.js');
    const { embeddingStatements, scoresTable } = await import('../report/embedding.js');
    await withSession(args, terminal, async (session) => {
      const { model } = session;
      const { nLayers } = model.info;
      const modalities = wanted ?? readable(model);
      requireModalities(model, modalities);
      const layer = theLayer(args.layers) ?? defaultEmbeddingLayer(nLayers);
      resolveLayers([layer], nLayers);
      const { prompts = 30 } = args;
      const options = { tasks, modalities, ...how, prompts, layer };
      const { folder, results, summary } = await runStudyCommand(session, args, {
        study: 'embed',
        units: embeddingUnits,
        title: `Prompts of ${describeModel(model.identity)} as points`,
        options,
        pictures: modalities.includes('image'),
      });
      const result = embeddingOf(results);
      const statements = embeddingStatements(result);
      if (args.json) {
        terminal.printJson({ folder, model: model.identity, options, statements, ...result });
      } else {
        const lines = statements.map((line) => `${line}\n`).join('');
        terminal.print(`${tableToText(scoresTable(result), terminal)}\n${lines}\n${summary}`);
      }
    });
  },
});
