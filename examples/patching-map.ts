// Which state carries the country? Each state of one prompt, written alone into another one, and what becomes of the answer.
//
//   node --import tsx examples/patching-map.ts
import { loadModel, patchLayers, tokenProbability } from 'xpatch';

await using model = await loadModel('demo');
await using context = await model.createContext();

const [from, into] = ['Q:Peru\nA:Lima\n\nQ:Japan\nA:', 'Q:Peru\nA:Lima\n\nQ:Egypt\nA:'];
const map = await patchLayers(context, { from, into, metric: tokenProbability('Tokyo') });
console.log(`probability of Tokyo: ${map.clean.toFixed(2)} for Japan, ${map.corrupt.toFixed(2)} for Egypt`);
for (const layer of map.layers) {
  const row = map.positions.map((position) => map.at(layer, position).toFixed(2).padStart(5));
  console.log(`layer ${layer} ${row.join('')}`);
}
