import { join } from 'node:path';
import { takeValidation } from '../../experiment/layer-from.js';
import { scoreProblem } from '../../experiment/line-check.js';
import { readLines } from '../../experiment/lines.js';
import { describeRun, type Manifest, type ModelRecord } from '../../experiment/manifest.js';
import { planExperiment } from '../../experiment/plan.js';
import { Queries } from '../../experiment/queries.js';
import type { Kernels, QueuedModel } from '../../experiment/queue/protocol.js';
import { QueueSeats } from '../../experiment/queue/seats.js';
import { LOGITS_BYTES, type RunOptions, runExperiment } from '../../experiment/run.js';
import { RESULTS_FILE } from '../../experiment/run-files.js';
import { RunFolder } from '../../experiment/run-folder.js';
import { seatAt } from '../../experiment/seats.js';
import { isToMerge } from '../../experiment/shard.js';
import { prepareStudy, usesPictures } from '../../experiment/study.js';
import type { Experiment, Plan } from '../../experiment/types.js';
import { VectorMaker, vectorsOf } from '../../experiment/vectors.js';
import type { Context } from '../../model/context.js';
import { XpatchError } from '../../util/errors.js';
import { printable } from '../../util/printable.js';
import type { Report } from '../report.js';
import { writeRunReport } from './run.js';

/** How an experiment is run in a folder. */
export interface FolderRunOptions extends RunOptions {
  /** Command line that resumes the run, for the manifest. Defaults to none. */
  readonly command?: string;
  /** What has to be said along with the results, e.g. what the model was trained on. Defaults to nothing. */
  readonly notes?: readonly string[];
  /** What `planExperiment` gave for the same experiment, model and shard. Defaults to planning here. */
  readonly plan?: Plan;
  /**
   * Folder of a complete run of the validation: with its answers and vectors only the test is left. Defaults to asking these too.
   */
  readonly layerFrom?: string | undefined;
  /** Workers that answer in place of this process (`workOn`). Defaults to none. */
  readonly queue?: { readonly url: string; readonly kernels: Kernels } | undefined;
  /** Called before the first pass. @param taken how many answers are from `layerFrom`, new in this folder */
  readonly onOpen?: (run: RunFolder, taken: number) => void | Promise<void>;
  /** Called when lines, or a vector, are on the disk: lines of the run so far. */
  readonly onSaved?: (lines: number) => void;
  /** Called when all answers are there. */
  readonly onReport?: () => void;
}

/** A finished run. */
export interface FolderRun {
  readonly run: RunFolder;
  /** Without any block of a shard that is made to be merged (`Shard.stage`, `layerFrom`), which has no page either. */
  readonly report: Report;
  /** Where patches were written in the test; none without patch conditions. */
  readonly layers: readonly number[];
}

/**
 * Runs an experiment into a folder: manifest, answers, vectors, tables, figures and report. A run that was interrupted resumes
 * where it was, and so does a complete one that has lost lines or vectors; a whole one is only reported.
 *
 * @throws {XpatchError} RUN_INVALID when it resumes from lines that are not its own; as `planExperiment`, `RunFolder.open`,
 *   `runExperiment`, `writeReport` and `RunFolder.finish`
 */
export async function runInFolder(
  context: Context,
  experiment: Experiment,
  folder: string,
  options: FolderRunOptions = {},
): Promise<FolderRun> {
  const { foreign, shard, layerFrom, queue, signal, onOpen, onSaved, onReport } = options;
  const sizes = { nCtx: context.options.nCtx, foreign: foreign?.model, shard, signal };
  const plan = options.plan ?? (await planExperiment(context.model, experiment, sizes));
  await using run = await RunFolder.open(folder, await describe(context, experiment, plan, options));
  const before = run.known.size;
  if (layerFrom !== undefined && !run.complete) await takeValidation(layerFrom, run);
  await onOpen?.(run, run.known.size - before);
  if (!run.complete && run.known.size + run.lost.size > 0) await mend(context, experiment, run, options);
  run.onSaved = () => onSaved?.(run.known.size);
  const seats = queue && !run.complete ? await openSeats(context, experiment, run, options) : undefined;
  const { layers } = await runExperiment(context, experiment, run, { work: plan.work, ...options, seats });
  if (!run.complete) await run.requireWhole();
  const answeredBy = seats && { answeredBy: seats.answeredBy };
  if (isToMerge(run.manifest)) {
    if (!run.complete) await run.finish({ layers, ...answeredBy });
    return { run, report: { title: String(run.manifest.title), introduction: [], blocks: [], provenance: {} }, layers };
  }
  onReport?.();
  const report = await writeRunReport(run, signal);
  if (!run.complete) await run.finish({ layers, headline: report.headline, ...answeredBy });
  return { run, report, layers };
}

/** Seats at the workers of a queue. @throws {XpatchError} as `QueueSeats.open` */
function openSeats(context: Context, experiment: Experiment, run: RunFolder, options: FolderRunOptions) {
  const { configHash, title, model, vectorModel, tasks } = run.manifest;
  const { url, kernels } = options.queue as NonNullable<FolderRunOptions['queue']>;
  const { signal, onNote, memory = LOGITS_BYTES } = options;
  const shared = { id: configHash, title: String(title), experiment, context: context.options, memory, kernels };
  const models = { model: queuedModel(model), ...(vectorModel && { vectorModel: queuedModel(vectorModel) }) };
  return QueueSeats.open({ ...shared, ...models, tasks }, { url, signal, onNote });
}

function queuedModel({ files: _, ...model }: ModelRecord): QueuedModel {
  return model;
}

/** Before a run resumes: what it knows must be its own, and vectors of answered queries that it has lost are made again. */
async function mend(context: Context, experiment: Experiment, run: RunFolder, options: FolderRunOptions) {
  const { foreign, shard, signal } = options;
  const study = await prepareStudy(context.model, experiment, foreign?.model);
  const queries = new Queries(study, context.model.info.nLayers, shard);
  for await (const { line, number } of readLines(run.path)) {
    const problem = queries.problemOf(line) ?? scoreProblem(line, experiment);
    if (problem === undefined) continue;
    const where = `Line ${number} of ${join(run.path, RESULTS_FILE)} was changed: ${printable(problem)}`;
    const wayOut = 'Delete it, or the whole file, and start the run again: what is missing is asked again.';
    throw new XpatchError('RUN_INVALID', `${where}. ${wayOut}`);
  }
  const maker = new VectorMaker(study, run, {
    own: context.model.identity.hash,
    foreign: foreign?.model.identity.hash,
  });
  const { read } = seatAt({ context, foreign });
  for (const wanted of vectorsOf(study)) if (run.lost.has(wanted.name)) await maker.get(wanted, read, { signal });
}

async function describe(
  context: Context,
  experiment: Experiment,
  plan: Plan,
  { command = '', notes = [], foreign, shard, layerFrom, signal }: FolderRunOptions,
): Promise<Manifest> {
  const { identity } = context.model;
  const description = {
    experiment: experiment.name,
    title: `${experiment.title}: ${identity.name || identity.architecture}`,
    command,
    options: experiment,
    tasks: experiment.tasks,
    pictures: usesPictures(experiment),
    style: experiment.style,
    notes: [...notes, ...plan.warnings],
    plan: plan.queries,
    vectorModel: foreign?.model,
    ...(shard && { shard }),
    signal,
  };
  const described = await describeRun(context, description);
  return { ...described, hook: 'resid_post', ...(layerFrom !== undefined && { layerFrom }) };
}
