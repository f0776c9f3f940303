// Counts the tokens of a text in a worker thread, whose stack is smaller than the main thread's.
import { parentPort, workerData } from 'node:worker_threads';
import { loadModel } from '../../dist/index.js';

const model = await loadModel(workerData.path, { device: 'cpu', threads: 1 });
parentPort.postMessage(model.tokenize(workerData.text).length);
await model.dispose();
