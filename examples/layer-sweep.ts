// Where in the model does a task vector work? One prefill, then every layer in one batch.
//
//   node --import tsx examples/layer-sweep.ts
import { extractTaskVector, loadModel, loadTask, splitTask, sweepLayers } from 'xpatch';

await using model = await loadModel('demo');
await using context = await model.createContext();

const task = await loadTask('animal-young');
const vector = await extractTaskVector(context, splitTask(task, 1), { spec: 'text' });

const { layers } = await sweepLayers(context, 'Q:cow\nA:', vector, { topK: 3 });
for (const { layer, top } of layers) {
  console.log(`layer ${layer}: ${top.map(({ text, probability }) => `${text} ${probability.toFixed(2)}`).join('  ')}`);
}
