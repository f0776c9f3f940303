// What most experiments are made of, one line each: states, patches, a sweep, a patching map, steering, and a page.
//
//   node --import tsx examples/ten-lines.ts
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  extractTaskVector,
  loadModel,
  loadTask,
  logitDifference,
  mark,
  patchLayers,
  splitTask,
  steeringVector,
  sweepLayers,
} from 'xpatch';
import { lensReport } from 'xpatch/report';

const folder = await mkdtemp(join(tmpdir(), 'xpatch-ten-lines-'));
await using model = await loadModel('demo'); // in plain JavaScript on Node 20 and 22: `finally { await model.dispose() }`
await using context = await model.createContext();

// Read: the states know their layers, positions and marks.
const { states } = await context.run({ prompt: ['Q:Peru\nA:', mark('delimiter')], capture: 'all' });
const state = states.at(3, 'delimiter');
const { states: other } = await context.run({ prompt: 'Q:Japan\nA:', capture: { positions: 'last' } });
const cosines = states.select({ positions: ['delimiter'] }).cosine(other); // [layer][position]
await states.save(join(folder, 'peru.safetensors'));
console.log(`${state.length} numbers at layer 3; cosine to those of Japan ${cosines[3]?.[0]?.toFixed(2)}`);

// Patch: a task vector into a query, at layer 2.
const vector = await extractTaskVector(context, splitTask(await loadTask('country-capital'), 1), { spec: 'text' });
const query = { prompt: 'Q:Peru\nA:' };
const [bare, patched] = await context.generate([query, { ...query, interventions: [vector.at(2)] }], { stop: ['\n'] });
console.log(`${bare.text} -> ${patched.text}`);

// Sweep: the same at every layer, with one token followed.
const sweep = await sweepLayers(context, query, vector, { track: ['Lima'] });
console.log(`Lima at layer 2: ${sweep.layers[2]?.tracked[0]?.probability.toFixed(2)}`);

// Map: every state of one prompt into another, one at a time.
const metric = logitDifference('Tokyo', 'Cairo');
const map = await patchLayers(context, { from: 'Q:Japan\nA:', into: 'Q:Egypt\nA:', metric });
console.log(`recovered at layer 3, last position: ${map.recovered(3, map.positions.at(-1) ?? 0).toFixed(2)}`);

// Steer: the direction from currencies to capitals, added to another query at layer 1, backwards and forwards.
const direction = await steeringVector(context, {
  positive: ['Q:Japan\nA:Tokyo\n\nQ:Cuba\nA:'],
  negative: ['Q:Japan\nA:Yen\n\nQ:Cuba\nA:'],
});
const steered = [-2, 0, 2].map((strength) => ({
  prompt: 'Q:Finland\nA:',
  interventions: [direction.at(1, { strength, positions: 'last', steps: 'prompt' })],
}));
const answers = await context.generate(steered, { stop: ['\n'] });
console.log(`Finland, steered by -2, 0 and 2: ${answers.map(({ text }) => text).join(', ')}`);

// Show: the logit lens as a page.
const page = await lensReport(context, query);
await page.save(join(folder, 'lens'));
console.log(`page: ${join(folder, 'lens', 'report.html')}`);
