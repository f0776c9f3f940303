import { resolveLayers } from '../hooks/points.js';
import { decodingReport, decodingStatements, decodingTable, type ShownLayer } from '../report/decodings.js';
import { tableToText } from '../report/tables.js';
import {
  bestWordLayer,
  type Decoding,
  decodeVector,
  defaultDecodingLayer,
  runDecodings,
} from '../studies/decodings.js';
import { requireModalities } from '../studies/modalities.js';
import type { TaskSpec } from '../tasks/prompts.js';
import { listTasks, loadTask } from '../tasks/task.js';
import { defineCommand } from './command.js';
import { describeModel, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseNames, requireTasks, shippedTasks, TASK_OPTIONS } from './experiment.js';
import { grouped, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_OPTIONS, PROMPTS, RUN_FOLDER, SPECS, TOP, theOne, VECTOR } from './options.js';
import { startRun } from './report-run.js';
import { shippedNotes } from './shipped-notes.js';
import { type LoadedVector, loadVector, requireFit } from './vector-file.js';

const KINDS: readonly TaskSpec[] = ['text', 'image', 'instruction'];

/** `xpatch decode`: task vectors as words. */
export const decode = defineCommand({
  command: 'decode',
  describe: 'Decode task vectors of text, images and instructions into words',
  options: {
    ...TASK_OPTIONS,
    prompts: vary(PROMPTS, { describe: 'Prompts whose mean is a vector. Defaults to 30', group: 'Task' }),
    ...grouped('Decoding', {
      specs: vary(SPECS, { describe: 'text, image, instruction. Defaults to what the model can read' }),
      layers: vary(LAYERS, {
        describe: 'all, or block outputs such as 4,7. Defaults to 18/32 of the depth and the best one',
      }),
      top: vary(TOP, { describe: 'Best tokens of each vector' }),
      vector: vary(VECTOR, { describe: 'Decode this file of extract or capture instead; repeat for more' }),
      output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-decode-DATE-TIME here' }),
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All tasks, all kinds of vectors', 'decode -m demo'],
    ['Every layer of two saved vectors', 'decode -m demo --vector a.safetensors --vector b.safetensors --layers all'],
  ],
  run: async (args, terminal) => {
    const tasks = await requireTasks(args.tasks);
    const wanted = args.specs === undefined ? undefined : parseNames('specs', args.specs, KINDS);
    const { layers: chosen } = args;
    for (const name of args.vector ? (['tasks', 'specs', 'seeds', 'style', 'shots', 'prompts'] as const) : []) {
      if (args[name] !== undefined)
        throw usageError(`--${name} has no effect on saved vectors. Leave it out, or --vector.`);
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
      for (const note of files.flatMap(({ notes }) => notes)) progress.note(note);
      const { style, shots = 5, prompts = 30, top } = args;
      const seed = theOne('--seeds', args.seeds) ?? 1;
      const options = files.length
        ? { vectors: files.map(({ file }) => file), topK: Math.min(top, nVocab) }
        : { tasks, specs, seed, style, shots, prompts, topK: Math.min(top, nVocab) };
      const title = `Task vectors of ${describeModel(model.identity)} as words`;
      await using run = await startRun(session, args, {
        experiment: 'decode',
        title,
        options: { ...options, layers: chosen ?? null },
        tasks: files.length ? [] : await shippedTasks(tasks),
      });
      const decodings =
        'vectors' in options
          ? await decodeFiles(session, files, options.topK)
          : await runDecodings(session.context, options, {
              signal: session.signal,
              onProgress: ({ done, total, stage }) => progress.update(stage, done / total),
              onVector: (name, vector) => run.files.saveVector(name, vector),
            });
      await run.files.append(decodings);
      const layers = shownLayers(decodings, chosen, nLayers);
      const notes = shippedNotes(model);
      await run.finish(decodingReport(decodings, layers, nVocab, { title, notes, provenance: run.provenance }));
      const statements = decodingStatements(decodings);
      if (args.json) {
        terminal.printJson({ folder: run.folder, model: model.identity, options, layers, statements, decodings });
      } else {
        const tables = layers.map(({ layer, why }) => {
          const table = decodingTable(decodings, layer, nVocab);
          return tableToText(why === undefined ? table : { ...table, title: `${table.title}, ${why}` });
        });
        terminal.print(`${tables.join('\n')}\n${statements.map((line) => `${line}\n`).join('')}\n${run.summary()}`);
      }
    });
  },
});

/** Saved vectors; one of a shipped task has the ranks of its task word and answers too. */
async function decodeFiles(
  { context, signal, progress }: Session,
  files: readonly LoadedVector[],
  topK: number,
): Promise<Decoding[]> {
  const shipped = await listTasks();
  const decodings: Decoding[] = [];
  for (const [i, { file, vector }] of files.entries()) {
    progress.update('decoding vectors', i / files.length);
    const { origin } = vector.info;
    const about = origin.op === 'prompts' ? { task: origin.task, spec: origin.spec } : {};
    const task = about.task !== undefined && shipped.includes(about.task) ? await loadTask(about.task) : undefined;
    decodings.push({ ...(await decodeVector(context, vector, { topK, task, signal })), ...about, file });
  }
  return decodings;
}

/** Those asked for; else the paper's depth and the layer where task words rank best. */
function shownLayers(
  decodings: readonly Decoding[],
  chosen: 'all' | number[] | undefined,
  nLayers: number,
): ShownLayer[] {
  const known = new Set(decodings.flatMap(({ layers }) => layers.map(({ layer }) => layer)));
  if (chosen !== undefined) {
    const layers = chosen === 'all' ? [...known].sort((a, b) => a - b) : chosen;
    const missing = layers.find((layer) => !known.has(layer));
    if (missing !== undefined) throw usageError(`No vector has layer ${missing}; they have ${[...known].join(', ')}.`);
    return layers.map((layer) => ({ layer }));
  }
  const paper = defaultDecodingLayer(nLayers);
  const best = bestWordLayer(decodings);
  return [
    ...(known.has(paper) ? [{ layer: paper, why: "the paper's 18 of 32 as a share of the depth" }] : []),
    ...(best !== undefined && best !== paper
      ? [{ layer: best, why: 'where task words rank best (chosen by that)' }]
      : []),
    ...(known.has(paper) || best !== undefined ? [] : [...known].map((layer) => ({ layer }))),
  ];
}
