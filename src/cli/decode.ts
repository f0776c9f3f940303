import { resolveLayers } from '../hooks/points.js';
import { decodingStatements, decodingTable, shownLayers } from '../report/decodings.js';
import { tableToText } from '../report/tables.js';
import { decodingUnits } from '../studies/decodings.js';
import { requireModalities } from '../studies/modalities.js';
import type { TaskSpec } from '../tasks/prompts.js';
import { hashOf } from '../util/files.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseNames, TASK_OPTIONS, taskPromptsOf } from './experiment.js';
import { grouped, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_OPTIONS, PROMPTS, RUN_FOLDER, SPECS, TOP, VECTOR } from './options.js';
import { runStudyCommand } from './report-run.js';
import { type LoadedVector, loadVector, requireFit } from './vector-file.js';

const KINDS: readonly TaskSpec[] = ['text', 'image', 'instruction'];

/** `xpatch decode`: task vectors as words. */
export const decode = defineCommand({
  command: 'decode',
  describe: 'Decode task vectors from text, images and instructions into words',
  options: {
    ...TASK_OPTIONS,
    prompts: vary(PROMPTS, {
      describe: 'Prompts that a vector is the mean of, for each seed. Defaults to 30',
      group: 'Task',
    }),
    ...grouped('Decoding', {
      specs: vary(SPECS, { describe: 'text, image, instruction. Defaults to what the model can read' }),
      layers: vary(LAYERS, {
        describe: 'all, or block outputs such as 4,7. Defaults to 18/32 of the depth and the best one',
      }),
      top: vary(TOP, { describe: 'Best tokens of each vector' }),
      vector: vary(VECTOR, { describe: 'Decode this file from extract or capture instead; repeat for more' }),
      output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-decode-DATE-TIME here' }),
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All tasks, all kinds of vectors', 'decode -m demo'],
    ['Vectors of three seeds', 'decode -m demo --seeds 1,2,3'],
    ['Every layer of two saved vectors', 'decode -m demo --vector a.safetensors --vector b.safetensors --layers all'],
  ],
  run: async (args, terminal) => {
    const { tasks, ...how } = await taskPromptsOf(args);
    const wanted = args.specs === undefined ? undefined : parseNames('specs', args.specs, KINDS);
    const { layers: chosen } = args;
    for (const name of args.vector
      ? (['tasks', 'specs', 'seeds', 'style', 'shots', 'template', 'prompts'] as const)
      : []) {
      if (args[name] !== undefined)
        throw usageError(`--${name} has no effect on saved vectors. Leave out one of the two.`);
    }
    const files: LoadedVector[] = [];
    for (const file of args.vector ?? []) files.push(await loadVector(file));
    await withSession(args, terminal, async (session) => {
      const { model, progress } = session;
      const { nLayers, nVocab } = model.info;
      if (chosen) resolveLayers(chosen, nLayers);
      const specs = wanted ?? KINDS.filter((spec) => spec !== 'image' || model.hasVision);
      requireModalities(model, specs);
      for (const loaded of files) requireFit(loaded, model.identity);
      for (const note of files.flatMap(({ notes }) => notes)) progress.noteOnce(note);
      const { prompts = 30, top } = args;
      const topK = Math.min(top, nVocab);
      const options = files.length
        ? { vectors: files.map(({ file }) => file), topK }
        : { tasks, specs, ...how, prompts, topK };
      const inputs: Record<string, string> = {};
      for (const { file } of files) inputs[file] = await hashOf(file);
      const { folder, results, summary } = await runStudyCommand(session, args, {
        study: 'decode',
        units: decodingUnits,
        title: `Task vectors of ${describeModel(model.identity)} as words`,
        options: { ...options, layers: chosen ?? null, vocabulary: nVocab, nLayers },
        pictures: files.length === 0 && specs.includes('image'),
        inputs,
      });
      const layers = shownLayers(results, chosen ?? null, nLayers);
      const statements = decodingStatements(results);
      if (args.json) {
        const decodings = results.map(({ vector: _, ...decoded }) => decoded);
        terminal.printJson({ folder, model: model.identity, options, layers, statements, decodings });
      } else {
        const tables = layers.map(({ layer, why }) => {
          const table = decodingTable(results, layer, nVocab);
          return tableToText(why === undefined ? table : { ...table, title: `${table.title}, ${why}` }, terminal);
        });
        terminal.print(`${tables.join('\n')}\n${statements.map((line) => `${line}\n`).join('')}\n${summary}`);
      }
    });
  },
});
