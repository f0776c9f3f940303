import { existsSync } from 'node:fs';
import type { ExperimentProgress } from '../experiment/types.js';
import { counted } from '../util/counted.js';
import type { ChildMessage, EvalJob, EvalResult } from './eval-protocol.js';
import type { ModelArguments, OutputArguments } from './options.js';
import { duration, RunRate } from './run-rate.js';
import { type EvalEvent, GRACE_MS, supervise } from './supervise.js';
import type { Terminal } from './terminal.js';

/** A job, and how it is shown. */
export interface EvalWork extends Omit<EvalJob, 'model' | 'crashes'> {
  /** Whether `--json` prints events too. */
  readonly events: boolean;
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
  const { events, ...job } = work;
  const { folder, command, layerFrom } = job;
  const { signal } = terminal;
  using line = terminal.progress(args);
  // A plan is one object that includes its notes.
  const emit = (event: string, fields: object) => {
    if (args.json && events && folder !== undefined) terminal.printJson({ event, ...fields });
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
        const { experiment, plan, known, taken, parallel } = event;
        if (known > taken) line.note(`resuming ${folder}: it already has ${counted(known - taken, 'answer')}`);
        if (taken > 0) line.note(`${counted(taken, 'answer')} of the validation taken from ${layerFrom}`);
        emit('start', { folder, known, taken, parallel, plan, experiment });
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
    if (begun) terminal.explainInterrupt(`The answers so far are in ${folder}; resume with: ${command}`);
    line.note(`finishing the current batch, in ${GRACE_MS / 1000} s at most; Ctrl-C again stops at once`);
  });
  line.update('starting');
  await supervise({ ...job, model: args }, { signal, onEvent });
  return ended as EvalResult | PlanResult;
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
