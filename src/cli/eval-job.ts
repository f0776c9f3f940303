import { join } from 'node:path';
import { XpatchError } from '../errors.js';
import { runCompute } from '../evaluation/compute.js';
import { fitToModel } from '../evaluation/experiment/fit.js';
import type { ExperimentManifest, ModelRecord } from '../evaluation/experiment/manifest.js';
import { planExperiment } from '../evaluation/experiment/plan.js';
import { runExperiment } from '../evaluation/experiment/run.js';
import { ExperimentRun } from '../evaluation/experiment/store.js';
import type { Experiment, Plan, ResultLine, RunStore } from '../evaluation/experiment/types.js';
import { RunFolder } from '../evaluation/run-folder.js';
import type { Context } from '../model/context.js';
import { contextWithin } from '../model/context-size.js';
import type { Model } from '../model/model.js';
import { PROMPT_GAP_NOTES, SHIPPED_NOTES } from '../model/resolve.js';
import { computeReport } from '../report/compute.js';
import { reportOfRun, writeRunReport } from '../report/experiment-run.js';
import type { Report } from '../report/report.js';
import { describeRun, provenanceOf, writeReport } from '../report/write-report.js';
import { openModel } from './common.js';
import { estimateCost } from './eval-estimate.js';
import type { ChildMessage, EvalJob, EvalResult } from './eval-protocol.js';
import type { FetchEvents } from './fetch-model.js';

interface Events {
  readonly signal: AbortSignal;
  readonly tell: (message: ChildMessage) => Promise<void>;
}

/** Sizes of a context when the command line names none. */
const CONTEXT = { nCtx: 4096, nUbatch: 512 };

/** Does a whole job of `xpatch eval` and gives what ends it. */
export async function runJob(job: EvalJob, events: Events): Promise<ChildMessage> {
  const { signal, tell } = events;
  const loading: FetchEvents = {
    signal,
    onDoing: (what, fraction, detail) => void tell({ type: 'doing', what, fraction, detail }),
    onNote: (text) => void tell({ type: 'note', text }),
  };
  const load = (args: EvalJob['model'], what: string) => openModel(args, loading, what);
  await using model = await load(job.model, 'loading the model');
  const { experiment, notes } = fitToModel(job.loaded, model.hasVision);
  for (const text of notes) void tell({ type: 'note', text });
  const reportNotes = [
    ...notes,
    ...(SHIPPED_NOTES[job.model.model] ?? []),
    ...(PROMPT_GAP_NOTES[job.model.model] ?? []),
  ];
  if (experiment.measure === 'compute') return await compute(job, model, experiment, reportNotes, events);

  const { vectorModel } = experiment;
  await using foreign =
    vectorModel === undefined
      ? undefined
      : await load({ ...job.model, model: vectorModel, mmproj: undefined }, 'loading the model of the vectors');
  void tell({ type: 'doing', what: 'planning' });
  const plan = await planExperiment(model, experiment, { foreign, shard: job.shard, nCtx: job.model.nCtx, signal });
  const context = await makeContext(model, job, plan.longest);
  const other = foreign && (await makeContext(foreign, job, plan.longest));
  if (job.folder === undefined) {
    void tell({ type: 'doing', what: 'measuring the speed of the model' });
    const estimate = await estimateCost(context, experiment, plan, signal);
    return { type: 'plan', plan, experiment, estimate };
  }

  const manifest = await describe(context, job, experiment, {
    plan,
    foreign,
    notes: [...reportNotes, ...plan.warnings],
  });
  await using run = await ExperimentRun.open(job.folder, manifest);
  for (const text of [...run.notes, ...plan.warnings]) void tell({ type: 'note', text });
  await tell({ type: 'start', experiment, plan, known: run.known.size });
  if (run.complete) void tell({ type: 'note', text: `${job.folder} is complete: nothing is left to do.` });
  const { layers } = await runExperiment(context, experiment, announcing(run, tell), {
    foreign: other,
    shard: job.shard,
    signal,
    onProgress: reporter(tell),
  });
  void tell({ type: 'doing', what: 'writing the report' });
  const report = run.complete ? await reportAgain(run, signal) : await writeRunReport(run, signal);
  if (!run.complete) await run.finish({ layers });
  return { type: 'done', result: resultOf(job.folder, model, experiment, report, layers) };
}

async function reportAgain(run: ExperimentRun, signal: AbortSignal): Promise<Report> {
  const lines: ResultLine[] = [];
  for await (const line of run.lines()) lines.push(line);
  return reportOfRun(run.manifest, lines, { loadVector: (name) => run.loadVector(name), signal });
}

/** A store that tells of everything that it has made durable. */
function announcing(store: RunStore, tell: Events['tell']): RunStore {
  let lines = store.known.size;
  return {
    get known() {
      return store.known;
    },
    lines: () => store.lines(),
    loadVector: (name) => store.loadVector(name),
    async append(some) {
      await store.append(some);
      lines += some.length;
      void tell({ type: 'saved', lines });
    },
    async saveVector(name, vector) {
      await store.saveVector(name, vector);
      void tell({ type: 'saved', lines });
    },
  };
}

const PROGRESS_MS = 100;

/** Passes progress on, not more often than anybody can read it but always when something new begins. */
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

/** A context that holds the longest prompt, in the memory given. */
function makeContext(model: Model, { model: args, memory }: EvalJob, longest: number): Promise<Context> {
  const { flashAttention } = args;
  const nCtx = args.nCtx ?? Math.max(CONTEXT.nCtx, longest);
  const sizes = { nCtx, nUbatch: Math.min(args.nUbatch ?? CONTEXT.nUbatch, nCtx) };
  const fitting = memory === undefined ? sizes : contextWithin(model, memory, sizes, longest);
  return model.createContext({ ...fitting, flashAttention });
}

async function describe(
  context: Context,
  { command, shard }: EvalJob,
  experiment: Experiment,
  { plan, foreign, notes }: { plan: Plan; foreign: Model | undefined; notes: readonly string[] },
): Promise<ExperimentManifest> {
  const { identity } = context.model;
  return {
    ...(await describeRun(context, {
      experiment: experiment.name,
      title: `${experiment.title}: ${identity.name || identity.architecture}`,
      command,
      options: experiment,
      tasks: experiment.tasks,
    })),
    options: experiment,
    notes,
    plan: plan.queries,
    hook: 'resid_post',
    ...(foreign && { vectorModel: recordOf(foreign) }),
    ...(shard && { shard }),
  };
}

function recordOf(model: Model): ModelRecord {
  const { identity, files, projectorHash: mmproj } = model;
  return { ...identity, files, ...(mmproj !== undefined && { mmproj }) };
}

/** The preset `compute`: some minutes at most, so it has nothing to resume. */
async function compute(
  job: EvalJob,
  model: Model,
  experiment: Experiment,
  notes: readonly string[],
  { signal, tell }: Events,
): Promise<ChildMessage> {
  const { folder } = job;
  if (folder === undefined || job.shard) {
    const message = 'measure: compute is a measurement of this machine: it has no plan and no shards. Run it as it is.';
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const context = await makeContext(model, job, 0);
  const { tasks, seeds, query, style, shots, test: queries } = experiment;
  const title = `${experiment.title}: ${model.identity.name || model.identity.architecture}`;
  const options = { experiment: experiment.name, title, command: job.command, options: experiment, tasks };
  const manifest = await describeRun(context, options);
  const run = await RunFolder.create(folder, manifest);
  const what = 'measuring';
  const costs = await runCompute(context, {
    task: tasks[0] as string,
    seed: seeds[0] as number,
    query,
    style,
    shots,
    queries,
    signal,
    onProgress: ({ done, total }) => void tell({ type: 'doing', what, fraction: done / total }),
  });
  const report = computeReport(costs, { title, notes, provenance: provenanceOf(manifest) });
  await run.write('compute.json', `${JSON.stringify(costs, null, 1)}\n`);
  await writeReport(run, report, { signal });
  await run.writeManifest({ ...manifest, status: 'complete', finished: new Date().toISOString() });
  return { type: 'done', result: resultOf(folder, model, experiment, report, []) };
}

function resultOf(
  folder: string,
  { identity }: Model,
  experiment: Experiment,
  { blocks }: Report,
  layers: readonly number[],
): EvalResult {
  return {
    folder,
    report: join(folder, 'report.html'),
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
  };
}
