// Tries files that were never loaded here, which may end this process: trial.ts starts it and reports how it ended.
import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { TrialJob, TrialLimits, TrialMessage } from './trial.js';
import { runTrial } from './trial-run.js';

/** Written at once: what comes next may end the process. */
function tell(message: TrialMessage): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

/** On a thread of its own, as native code may keep this one: the limits, and whether somebody still waits for this process. */
const WATCH = `
const { workerData: { bytes, seconds, parent } } = require('node:worker_threads');
setInterval(() => {
  const { user, system } = process.cpuUsage();
  const type = process.memoryUsage.rss() > bytes ? 'memory' : (user + system) / 1e6 > seconds ? 'time' : undefined;
  if (type === undefined && process.ppid === parent) return;
  if (type !== undefined) require('node:fs').writeSync(1, JSON.stringify({ type }) + '\\n');
  process.kill(process.pid, 'SIGKILL');
}, 20);
`;

const [job, limits] = JSON.parse(process.argv[2] as string) as [TrialJob, TrialLimits];
// Ctrl-C reaches the whole group: the process that waits decides what becomes of this one.
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => undefined);
const bytes = process.memoryUsage.rss() + limits.bytes;
new Worker(WATCH, { eval: true, workerData: { ...limits, bytes, parent: process.ppid } });
tell({ type: 'done', complete: await runTrial(job, (stage) => tell({ type: 'stage', stage })) });
process.exit();
