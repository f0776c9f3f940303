// Holds the model in a separate process: eval forks this file, and again if it crashes (supervise.ts).
import { tellParent } from '../util/child.js';
import { XpatchError } from '../util/errors.js';
import type { ChildMessage, EvalJob, ParentMessage } from './eval-protocol.js';

const tell: (message: ChildMessage) => Promise<void> = tellParent;

const controller = new AbortController();
// Ctrl-C in a terminal reaches both processes; this one waits for orders from the other.
for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => undefined);
// Nobody is left to report to. A run can be killed at any moment.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));

async function work(job: EvalJob): Promise<void> {
  try {
    const { runJob } = await import('./eval-job.js');
    await tell(await runJob(job, { signal: controller.signal, tell }));
  } catch (error) {
    const known = error instanceof XpatchError;
    const { message, stack } = error as Error;
    await tell({ type: 'error', message, stack, ...(known && { code: error.code }) });
  }
  process.exit();
}

process.on('message', (message: ParentMessage) => {
  if (message.type === 'job') void work(message.job);
  else controller.abort(new Error('interrupted'));
});
