import { resolveLayers } from '../model/pass.js';
import { tableToText } from '../report/tables.js';
import type { EmbeddingResult } from '../studies/embedding.js';
import { requireModalities } from '../studies/modalities.js';
import type { Modality } from '../tasks/prompts.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  withSession,
} from './common.js';
import { usageError } from './errors.js';
import { type ExperimentArguments, experimentOptions, parseNames, parseTasks, shippedTasks } from './experiment.js';
import { textOption, wholeOption } from './options.js';
import { type ReportArguments, reportOptions, startRun } from './report-run.js';
import { shippedNotes } from './shipped-notes.js';

interface EmbedArguments extends ModelArguments, OutputArguments, ReportArguments, ExperimentArguments {
  modalities?: string;
  layer?: number;
}

const MODALITIES: readonly Modality[] = ['text', 'image'];

/** `xpatch embed`: prompts as points, by their contexts and by their last delimiters. */
export const embed = defineCommand<EmbedArguments>({
  command: 'embed',
  describe: 'Show whether prompts cluster by task or by modality: t-SNE, PCA, scores',
  options: (yargs) =>
    experimentOptions(
      reportOptions(outputOptions(modelOptions(yargs)), 'embed'),
      'Points a task and modality, at least 3. Defaults to 30',
    )
      .option(
        'modalities',
        textOption('modalities', 'text, image or both with a comma. Defaults to what the model can read'),
      )
      .option('layer', wholeOption('layer', 0, 'Block whose output is shown. Defaults to 23/36 of the depth'))
      .group(['modalities', 'layer', 'output'], 'Embedding:'),
  examples: [
    ['All tasks, text and pictures', 'embed -m demo'],
    ['Another layer', 'embed -m demo --layer 2'],
  ],
  run: async (args, terminal) => {
    const tasks = await parseTasks(args.tasks);
    if (tasks.length < 2) throw usageError('--tasks needs at least two tasks: they are compared with each other.');
    if (args.prompts !== undefined && args.prompts < 3) throw usageError('--prompts must be a whole number from 3.');
    const wanted = args.modalities === undefined ? undefined : parseNames('modalities', args.modalities, MODALITIES);
    // Not imported at the top: no other command needs the library behind it.
    const { defaultEmbeddingLayer, runEmbedding } = await import('../studies/embedding.js');
    const { embeddingReport, embeddingStatements, scoresTable } = await import('../report/embedding.js');
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress } = session;
      const { nLayers } = model.info;
      const modalities = wanted ?? (model.hasVision ? MODALITIES : ['text' as const]);
      requireModalities(model, modalities);
      const layer = args.layer ?? defaultEmbeddingLayer(nLayers);
      resolveLayers([layer], nLayers);
      const { seed = 1, style, shots = 5, prompts = 30 } = args;
      const options = { tasks, modalities, seed, style, shots, prompts, layer };
      const title = `Prompts of ${describeModel(model.identity)} as points`;
      await using run = await startRun(session, args, {
        experiment: 'embed',
        title,
        options,
        tasks: await shippedTasks(tasks),
      });
      const result: EmbeddingResult = await runEmbedding(context, options, {
        signal,
        onProgress: ({ done, total, stage }) => progress.update(stage, done / total),
      });
      const places = result.spaces.map(({ of, layer, tsne, pca }) => ({ of, layer, tsne, pca: pca.points }));
      await run.files.append(
        result.prompts.map((prompt, i) => ({
          ...prompt,
          places: places.map(({ tsne, pca, ...space }) => ({ ...space, tsne: tsne[i], pca: pca[i] })),
        })),
      );
      const notes = shippedNotes(model);
      await run.finish(embeddingReport(result, { title, notes, provenance: { ...run.provenance, seed } }));
      const statements = embeddingStatements(result);
      if (args.json) {
        terminal.printJson({ folder: run.folder, model: model.identity, options, statements, ...result });
      } else {
        const lines = statements.map((line) => `${line}\n`).join('');
        terminal.print(`${tableToText(scoresTable(result))}\n${lines}\n${run.summary()}`);
      }
    });
  },
});
