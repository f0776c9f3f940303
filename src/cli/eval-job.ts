import { cpus, hostname } from 'node:os';
import { join } from 'node:path';
import { fitToModel } from '../experiment/fit.js';
import { planExperiment } from '../experiment/plan.js';
import { LOGITS_BYTES, parallelism } from '../experiment/run.js';
import type { Experiment } from '../experiment/types.js';
import type { Context } from '../model/context.js';
import { contextBytes, contextWithin } from '../model/context-size.js';
import type { Model } from '../model/model.js';
import { listDevices } from '../native/index.js';
import { compute } from '../report/experiment/compute.js';
import { runInFolder } from '../report/experiment/run-experiment.js';
import type { Report } from '../report/report.js';
import { runStudyInFolder } from '../report/run-study.js';
import { openModel } from './common.js';
import { estimateCost } from './eval-estimate.js';
import type { ChildMessage, EvalJob, EvalResult } from './eval-protocol.js';
import { templateNotes } from './experiment.js';
import type { FetchEvents } from './fetch-model.js';
import { promptGapNotes, shippedNotes } from './shipped-notes.js';
import { meterTraffic } from './traffic.js';

interface Events {
  readonly signal: AbortSignal;
  readonly tell: (message: ChildMessage) => Promise<void>;
}

/** Sizes of a context if the command line names none. */
const CONTEXT = { nCtx: 4096, nUbatch: 512 };
/** Without `--memory`, the most that several contexts may take together. */
const LANES_BYTES = 2 ** 30;

/** Does a whole `xpatch eval` job and returns its last message. */
export async function runJob(job: EvalJob, events: Events): Promise<ChildMessage> {
  const { signal, tell } = events;
  const note = (text: string) => void tell({ type: 'note', text });
  const loading: FetchEvents = {
    signal,
    onDoing: (what, fraction, detail) => void tell({ type: 'doing', what, fraction, detail }),
    onNote: note,
  };
  const load = (args: EvalJob['model'], what: string) => openModel(args, loading, what);
  await using model = await load(job.model, 'loading the model');
  const { experiment, notes } = fitToModel(job.loaded, model.hasVision);
  notes.forEach(note);
  const known = [...shippedNotes(model), ...promptGapNotes(model)];
  const reportNotes = [...notes, ...known, ...templateNotes(experiment.template)];
  if (experiment.measure === 'compute') return await measure(job, model, experiment, reportNotes, events);

  const { vectorModel } = experiment;
  await using foreign =
    vectorModel === undefined
      ? undefined
      : await load({ ...job.model, model: vectorModel, mmproj: undefined }, 'loading the model of the vectors');
  const planning = (fraction: number) => void tell({ type: 'doing', what: 'planning', fraction });
  const plan = await planExperiment(model, experiment, {
    foreign,
    shard: job.shard,
    nCtx: job.model.nCtx,
    signal,
    onProgress: ({ done, total }) => planning(done / total),
  });
  const models = foreign ? [model, foreign] : [model];
  const { parallel, logits, context: bytes } = shareOut(job, models, plan.longest);
  const threads = parallel > 1 ? 1 : undefined;
  const context = await makeContext(model, job.model, bytes, plan.longest, threads);
  const other = foreign && (await makeContext(foreign, job.model, bytes, plan.longest, threads));
  if (job.folder === undefined) {
    void tell({ type: 'doing', what: 'measuring the speed of the model' });
    const estimate = await estimateCost(context, experiment, plan, parallel, signal);
    return { type: 'plan', plan, experiment, estimate, notes };
  }

  const { shard, layerFrom, queue, command } = job;
  const traffic = await meterTraffic(job.model.rpc);
  const { report, layers } = await runInFolder(context, experiment, job.folder, {
    foreign: other,
    shard,
    layerFrom,
    queue,
    signal,
    command,
    plan,
    notes: reportNotes,
    parallel,
    memory: logits,
    onOpen: async (run, taken) => {
      [...run.notes, ...plan.warnings].forEach(note);
      await tell({ type: 'start', experiment, plan, known: run.known.size, taken, parallel });
      if (run.complete) note(`${run.path} is complete: there is nothing left to ask.`);
    },
    onSaved: (lines) => void tell({ type: 'saved', lines }),
    onReport: () => void tell({ type: 'doing', what: 'writing the report' }),
    onNote: note,
    onProgress: reporter(tell),
  });
  const used = traffic();
  if (used !== undefined) note(used);
  return { type: 'done', result: resultOf(job.folder, model, experiment, report, layers) };
}

const PROGRESS_MS = 100;

/** Passes progress on, no more often than anyone can read it, but always when something new begins. */
function reporter(tell: Events['tell']) {
  let [before, at] = ['', 0];
  return (progress: Extract<ChildMessage, { type: 'progress' }>['progress']) => {
    const { stage, task, seed, done, total } = progress;
    const what = `${stage} ${task} ${seed}`;
    const now = Date.now();
    if (what === before && now - at < PROGRESS_MS && done < total) return;
    [before, at] = [what, now];
    void tell({ type: 'progress', progress });
  };
}

/**
 * How many items at a time, and how `--memory` is divided between the logits of each and each context. Sizes do not depend on the
 * machine's cores, so neither do answers: if memory is short, there are fewer contexts, and only if it is too little for one
 * item are they smaller. After a crash, which memory may have caused, there are half as many.
 */
function shareOut({ memory, model: args, crashes = 0 }: EvalJob, models: readonly Model[], longest: number) {
  const logits = Math.min(LOGITS_BYTES, (memory ?? LANES_BYTES) / 4);
  const bytes = models.map((model) => contextBytes(model, sizesOf(args, longest)) ?? Number.POSITIVE_INFINITY);
  const fitting = Math.floor((memory ?? LANES_BYTES) / bytes.reduce((sum, one) => sum + one, logits));
  const suiting = Math.min(fitting, ...models.map((model) => parallelism(model, args.threads)));
  const parallel = Math.max(1, Math.floor(suiting / 2 ** crashes));
  return { parallel, logits, context: memory === undefined ? undefined : (memory - logits) / models.length };
}

/** Sizes of a context that holds the longest prompt, if memory allows. */
function sizesOf(args: EvalJob['model'], longest: number) {
  const nCtx = args.nCtx ?? Math.max(CONTEXT.nCtx, longest);
  return { nCtx, nUbatch: Math.min(args.nUbatch ?? CONTEXT.nUbatch, nCtx) };
}

/** @param bytes the most it may take; undefined for no bound */
function makeContext(
  model: Model,
  args: EvalJob['model'],
  bytes: number | undefined,
  longest: number,
  threads?: number,
): Promise<Context> {
  const { flashAttention } = args;
  const sizes = sizesOf(args, longest);
  const fitting = bytes === undefined ? sizes : contextWithin(model, bytes, sizes, longest);
  return model.createContext({ ...fitting, flashAttention, threads });
}

/** The preset `compute`, which asks nothing, so there is no plan. */
async function measure(
  job: EvalJob,
  model: Model,
  experiment: Experiment,
  notes: readonly string[],
  { signal, tell }: Events,
): Promise<ChildMessage> {
  const folder = job.folder as string; // `xpatch eval` refuses a plan of it
  const context = await makeContext(model, job.model, job.memory, 0);
  const { report } = await runStudyInFolder(context, folder, {
    study: 'compute',
    units: compute.units,
    experiment: experiment.name,
    title: `${experiment.title}: ${model.identity.name || model.identity.architecture}`,
    command: job.command,
    options: experiment,
    tasks: experiment.tasks,
    pictures: experiment.query === 'image',
    style: experiment.style,
    // Times from two machines must not be mixed.
    inputs: { machine: machineOf(context) },
    notes,
    signal,
    onOpen: ({ notes: found }) => {
      for (const text of found) void tell({ type: 'note', text });
    },
    onProgress: ({ done, total, stage }) =>
      void tell({ type: 'doing', what: `measuring, ${stage}`, fraction: done / total }),
    onReport: () => void tell({ type: 'doing', what: 'writing the report' }),
  });
  return { type: 'done', result: resultOf(folder, model, experiment, report, []) };
}

function machineOf({ model, options }: Context): string {
  const { device, threads } = model.options;
  return [
    hostname(),
    cpus()[0]?.model,
    ...listDevices().map(({ description }) => description),
    device,
    options.threads ?? threads,
  ].join(', ');
}

function resultOf(
  folder: string,
  { identity }: Model,
  experiment: Experiment,
  { blocks, introduction, caveats = [] }: Report,
  layers: readonly number[],
): EvalResult {
  const chart = blocks.find((block) => block.kind === 'bars');
  return {
    folder,
    ...(blocks.length > 0 && { report: join(folder, 'report.html') }),
    model: identity,
    experiment,
    layers,
    tables: blocks.flatMap((block) =>
      block.kind === 'table' ? [{ name: block.name, heading: block.heading, table: block.table }] : [],
    ),
    examples: blocks.flatMap((block) => (block.kind === 'examples' ? block.examples : [])),
    figures: blocks.flatMap(({ kind, name }) =>
      kind === 'table' || kind === 'examples' ? [] : [join(folder, 'figures', `${name}.png`)],
    ),
    introduction,
    ...(chart && { bars: chart.bars }),
    caveats,
  };
}
