// The bare machinery: read hidden states at named positions, and overwrite them in other rows of the same pass.
//
//   node --import tsx examples/read-and-write-states.ts
import { type Intervention, loadModel, mark } from 'xpatch';

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

// After one example the model answers with the capital. What is left of that without a state, with another country's, and steered?
const asked = ['Q:Japan\nA:Tokyo\n\nQ:Peru', mark('country'), '\nA:'];
const other = await context.run({ prompt: 'Q:Japan\nA:Tokyo\n\nQ:Cuba\nA:', capture: 'all' });
const money = await context.run({ prompt: 'Q:Japan\nA:Yen\n\nQ:Cuba\nA:', capture: 'all' });
const capital = other.states.at(2, 'last');
const currency = money.states.at(2, 'last').map((number, i) => number - (capital[i] ?? 0));
const edits: Record<string, Intervention[]> = {
  'as it is': [],
  'the last state of layer 5 zeroed': [{ layers: 5, op: 'zero' }],
  'that of a prompt about Cuba in its place': [{ layers: 5, op: 'replace', value: other.states.at(5, 'last') }],
  'the states of "u" zeroed in layers 0 to 2': [{ layers: [0, 1, 2], positions: 'country', op: 'zero' }],
  'steered from capital to currency at layer 2': [{ layers: 2, op: 'add', value: currency, factor: 2 }],
};
const results = await context.pass(
  Object.values(edits).map((interventions) => ({ prompt: asked, topK: 1, interventions })),
);
for (const [i, what] of Object.keys(edits).entries()) {
  const { top: [best] = [], interventions = [] } = results[i] ?? {};
  const change = interventions.reduce((sum, { delta }) => sum + delta, 0).toFixed(1);
  console.log(
    `${what}: ${JSON.stringify(best?.text)} with probability ${best?.probability.toFixed(2)}, changed by ${change}`,
  );
}
