// The bare machinery: read hidden states at named positions, and overwrite them in other rows of the same pass.
//
//   node --import tsx examples/read-and-write-states.ts
import { loadModel, mark } from 'xpatch';

await using model = await loadModel('demo'); // in plain JavaScript on Node 20 and 22: `finally { await model.dispose() }`
await using context = await model.createContext();

const prompt = ['Q:Peru', mark('country'), '\nA:', mark('delimiter')];
const { states } = await context.run({ prompt, capture: 'all' });
const [layers, positions, width] = states.shape;
console.log(`states: ${layers} layers x ${positions} positions x ${width} numbers, marks at`, states.marks);
console.log('layer 3 at the delimiter begins with', states.at(3, 'delimiter').slice(0, 4));

// Other countries' delimiters, one prompt a row; how alike is what the model makes of them?
const [japan, cuba] = await context.pass(
  ['Japan', 'Cuba'].map((country) => ({ prompt: `Q:${country}\nA:`, capture: { positions: 'last' } })),
);
if (japan && cuba)
  console.log(
    'cosine by layer:',
    japan.states
      .cosine(cuba.states)
      .map(([c]) => c?.toFixed(2))
      .join(' '),
  );

// The same prompt as it is, with one state zeroed, with the last block's output doubled, and steered in three layers.
const value = states.at(3, 'delimiter');
const results = await context.pass([
  { prompt, topK: 1 },
  { prompt, topK: 1, interventions: [{ layers: 3, positions: 'country', op: 'zero' }] },
  { prompt, topK: 1, interventions: [{ layers: layers - 1, op: 'scale', factor: 2 }] },
  {
    prompt,
    topK: 1,
    interventions: [{ layers: [2, 3, 4], positions: 'all', op: 'add', value, factor: [0.1, 0.2, 0.1] }],
  },
]);
for (const { top, interventions } of results) {
  const [best] = top;
  const change = interventions.reduce((sum, { delta }) => sum + delta, 0).toFixed(1);
  console.log(`${JSON.stringify(best?.text)} with probability ${best?.probability.toFixed(3)}, changed by ${change}`);
}
