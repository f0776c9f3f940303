// Makes many trials one after the other, as the product's own process makes one; forked by ../native/damage.ts. That a file ends this
// process is what a trial is for.
import { Worker } from 'node:worker_threads';
import { runTrial } from '../../dist/model/trial-run.js';

new Worker("setInterval(() => process.memoryUsage.rss() > 3e9 && process.kill(process.pid, 'SIGKILL'), 20)", {
  eval: true,
});
process.on('message', async ({ model, mmproj }) => {
  await runTrial({ model, mmproj, device: 'cpu', gpuLayers: -1, threads: 1 }, () => {});
  process.send({ outcome: 'tried' });
});
