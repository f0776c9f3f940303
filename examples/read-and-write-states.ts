// The bare machinery: read hidden states at named positions, and overwrite them in other rows of the same pass.
//
//   npx tsx examples/read-and-write-states.ts
import { loadModel } from 'xpatch';

await using model = await loadModel('demo'); // in plain JavaScript on Node 20 and 22: `finally { await model.dispose() }`
const context = await model.createContext();

const prompt = await model.prompt(['Q:Peru', { mark: 'country' }, '\nA:', { mark: 'delimiter' }]);
console.log(`${prompt.length} positions, marks at`, prompt.marks);

const [read] = await context.pass([
  { prompt, capture: { layers: 'all', positions: ['country', 'delimiter'] }, topK: 1 },
]);
const states = read?.states;
if (!states) throw new Error('no states came back');
const [layers, positions, width] = states.shape;
console.log(`states: ${layers} layers x ${positions} positions x ${width} numbers`);

// The same prompt three times: as it is, with one state zeroed, and with the last block's output doubled.
const results = await context.pass([
  { prompt, topK: 1 },
  { prompt, topK: 1, interventions: [{ hook: 'resid_post', layer: 3, positions: 'country', op: 'zero' }] },
  {
    prompt,
    topK: 1,
    interventions: [{ hook: 'resid_post', layer: layers - 1, positions: 'last', op: 'scale', factor: 2 }],
  },
]);
for (const { top, interventions } of results) {
  const change = interventions.map(({ layer, delta }) => `layer ${layer} changed by ${delta.toFixed(1)}`).join(', ');
  console.log(
    `${JSON.stringify(top?.[0]?.text)} with probability ${top?.[0]?.probability.toFixed(3)} (${change || 'untouched'})`,
  );
}
