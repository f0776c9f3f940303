import { fileURLToPath } from 'node:url';
import { runChild as runProcess } from '../util/child.js';
import { ERROR_CODES, XpatchError, type XpatchErrorCode } from '../util/errors.js';
import type { ChildMessage, EvalJob, ParentMessage } from './eval-protocol.js';

/** What the command learns from the process with the model. */
export type EvalEvent = ChildMessage | { readonly type: 'child'; readonly pid: number } | Restart;

interface Restart {
  readonly type: 'restart';
  /** How the process ended, and what it was doing. */
  readonly reason: string;
}

/** How long it may take to finish the current batch. What is lost after that is asked again. */
export const GRACE_MS = 6000;

/**
 * Does a job in a separate process, which holds the model: an abort in native code, a failing driver or the system's
 * out-of-memory killer ends that process and not this one. It is then restarted, once, and again as long as each
 * process saves something new, with half as many items at a time: there may have been too little memory for all of them.
 *
 * @throws {XpatchError} MODEL_CRASHED; ABORTED; otherwise what the job fails with
 */
export async function supervise(
  job: EvalJob,
  { signal, onEvent }: { signal: AbortSignal; onEvent: (event: EvalEvent) => void },
): Promise<void> {
  for (let [fruitless, crashes] = [0, 0]; ; crashes++) {
    const ended = await runChild({ ...job, crashes }, signal, onEvent);
    if (ended === undefined) return;
    if (signal.aborted) throw new XpatchError('ABORTED', 'The run was interrupted.', { cause: signal.reason });
    fruitless = ended.saved ? 1 : fruitless + 1;
    if (fruitless > 1) throw crashError(job, ended);
    onEvent({ type: 'restart', reason: `${ended.how} ${ended.doing}` });
  }
}

interface Crash {
  /** Whether it saved anything. */
  readonly saved: boolean;
  readonly how: string;
  readonly doing: string;
  readonly log: string;
}

/** @returns how it crashed; undefined when the job is done */
async function runChild(
  job: EvalJob,
  signal: AbortSignal,
  onEvent: (event: EvalEvent) => void,
): Promise<Crash | undefined> {
  let doing = 'while it was starting';
  let saved = false;
  let end: Extract<ChildMessage, { type: 'done' | 'plan' | 'error' }> | undefined;
  const { how, log } = await runProcess<ChildMessage>([fileURLToPath(new URL('./eval-child.js', import.meta.url))], {
    job: { type: 'job', job } satisfies ParentMessage,
    signal,
    stop: { message: { type: 'stop' } satisfies ParentMessage, graceMs: GRACE_MS },
    onStart: (pid) => onEvent({ type: 'child', pid }),
    onMessage: (message) => {
      if (message.type === 'doing') doing = `while ${message.what}`;
      else if (message.type === 'progress') doing = whileAnswering(message.progress);
      else if (message.type === 'saved') saved = true;
      else if (message.type === 'done' || message.type === 'plan' || message.type === 'error') end = message;
      onEvent(message);
    },
  });
  const last = end as typeof end | undefined;
  if (last?.type === 'error') throw errorOf(last);
  return last ? undefined : { saved, how, doing, log };
}

function whileAnswering({
  stage,
  task,
  seed,
  done,
  total,
}: Extract<ChildMessage, { type: 'progress' }>['progress']): string {
  const what = stage === 'vectors' ? 'reading vectors' : `answering ${stage} queries`;
  return `while ${what} of ${task}, seed ${seed} (${done} of ${total} done)`;
}

function errorOf({ code, message, stack }: Extract<ChildMessage, { type: 'error' }>): Error {
  if (ERROR_CODES.includes(code as XpatchErrorCode)) return new XpatchError(code as XpatchErrorCode, message);
  return Object.assign(new Error(message), { stack });
}

function crashError(job: EvalJob, { how, doing, log }: Crash): XpatchError {
  const memory = /SIGKILL/.test(how) ? ' The system does this when memory runs out: try a smaller --memory.' : '';
  const kept = job.folder === undefined ? '' : ' Its answers are kept, and the same command resumes from there.';
  const said = log === '' ? '' : ` Its last output:\n${log}`;
  const message = `The process with the model ${how} ${doing}, twice without progress.${memory}${kept} Try --device cpu, or \`xpatch doctor\`.${said}`;
  return new XpatchError('MODEL_CRASHED', message);
}
