import { existsSync } from 'node:fs';
import type { LoadedExperiment } from '../experiment/config.js';
import type { Kernels } from '../experiment/queue/protocol.js';
import type { Shard } from '../experiment/shard.js';
import type { ExperimentProgress } from '../experiment/types.js';
import type { ChildMessage, EvalResult } from './eval-protocol.js';
import type { ModelArguments, OutputArguments } from './options.js';
import { duration, RunRate } from './run-rate.js';
import { type EvalEvent, GRACE_MS, supervise } from './supervise.js';
import type { Terminal } from './terminal.js';

export interface EvalWork {
  readonly loaded: LoadedExperiment;
  /** Without one, only the plan is made. */
  readonly folder?: string;
  readonly memory?: number;
  readonly shard?: Shard | undefined;
  /** For a test: folder of the validation run that it continues from. */
  readonly layerFrom?: string | undefined;
  /** Who answers instead of this process. */
  readonly queue?: { readonly url: string; readonly kernels: Kernels } | undefined;
  /** Whether `--json` prints events too. */
  readonly events: boolean;
  /** Command line that resumes the run. */
  readonly resume: string;
}

export type PlanResult = Extract<ChildMessage, { type: 'plan' }>;

/** Between two progress events of `--json`. */
const EVENT_MS = 1000;

/**
 * Runs an experiment in a separate process and shows its progress: a line on stderr, or with `events` one JSON object per line on
 * stdout.
 */
export async function runEval(
  args: ModelArguments & OutputArguments,
  terminal: Terminal,
  work: EvalWork,
): Promise<EvalResult | PlanResult> {
  const { folder, loaded, memory, shard, layerFrom, queue, resume } = work;
  const { signal } = terminal;
  const line = terminal.progress(args);
  // A plan is one object that includes its notes.
  const emit = (event: string, fields: object) => {
    if (args.json && work.events && folder !== undefined) terminal.printJson({ event, ...fields });
  };
  const [asked, worked] = [new RunRate(), new RunRate()];
  let eventAt = 0;
  let ended: EvalResult | PlanResult | undefined;
  const noted = new Set<string>();

  const onEvent = (event: EvalEvent): void => {
    switch (event.type) {
      case 'child':
        emit('process', { pid: event.pid });
        break;
      case 'doing':
        line.update(event.what, event.fraction, event.detail);
        break;
      case 'note':
        line.note(event.text);
        if (!args.quiet) noted.add(event.text);
        emit('note', { text: event.text });
        break;
      case 'start': {
        const { experiment, plan, known, parallel } = event;
        if (known > 0) line.note(`resuming ${folder}: it already has ${known} answers`);
        emit('start', { folder, known, parallel, plan, experiment });
        break;
      }
      case 'progress': {
        const { progress } = event;
        const { perSecond } = asked.at(progress.fresh, progress.total);
        const { left } = worked.at(progress.worked, progress.worked + progress.left);
        line.update(stageOf(progress), 1 - progress.left, describeRate(progress, perSecond, left));
        if (Date.now() - eventAt < EVENT_MS && progress.done < progress.total) break;
        eventAt = Date.now();
        emit('progress', { ...progress, perSecond, secondsLeft: left });
        break;
      }
      case 'saved':
        emit('batch', { lines: event.lines });
        break;
      case 'restart':
        asked.reset();
        worked.reset();
        line.note(`the process with the model ${event.reason}; restarting it`);
        emit('restart', { reason: event.reason });
        break;
      case 'plan':
        ended = event;
        break;
      case 'done':
        // What was said before the work is not repeated after it.
        ended = { ...event.result, caveats: event.result.caveats.filter((text) => !noted.has(text)) };
        break;
    }
  };
  signal.addEventListener('abort', () => {
    if (folder === undefined) return;
    const begun = existsSync(folder);
    if (begun) terminal.explainInterrupt(`The answers so far are in ${folder}; resume with: ${resume}`);
    line.note(`finishing the current batch, in ${GRACE_MS / 1000} s at most; Ctrl-C again stops at once`);
  });
  try {
    line.update('starting');
    const { json, quiet, ...model } = args;
    await supervise(
      { model: modelArguments(model), loaded, folder, memory, shard, layerFrom, queue, command: resume },
      { signal, onEvent },
    );
  } finally {
    line.done();
  }
  return ended as EvalResult | PlanResult;
}

/** Only what can be sent to a process: yargs puts more into its arguments. */
function modelArguments(args: ModelArguments): ModelArguments {
  const { model, mmproj, device, rpc, gpuLayers, threads, imageWidth, imageCache, nCtx, nUbatch, flashAttention } =
    args;
  return { model, mmproj, device, rpc, gpuLayers, threads, imageWidth, imageCache, nCtx, nUbatch, flashAttention };
}

function stageOf({ stage, task, seed }: ExperimentProgress): string {
  const what = stage === 'vectors' ? 'vectors' : `${stage} queries`;
  return `${what}, ${task}, seed ${seed}`;
}

function describeRate({ done, total }: ExperimentProgress, perSecond: number | undefined, left: number | undefined) {
  const speed =
    perSecond === undefined ? '' : `, ${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} prompts/s`;
  const rest = left === undefined ? '' : `, ${duration(left)} left`;
  return `${done} of ${total} prompts${speed}${rest}`;
}
