// A task vector from text examples, patched into a picture: the effect in forty lines.
//
//   npx tsx examples/cross-modal-patch.ts
import { extractTaskVector, fewShotPrompt, loadModel, loadTask, queryPrompt, splitTask } from 'xpatch';

await using model = await loadModel('demo');
const context = await model.createContext();

// Thirty countries to make the vector from, and others to ask about. Nothing of the test items is in the vector.
const task = await loadTask('country-capital', { pictures: true });
const split = splitTask(task, 1, { pictures: true });

// The residual stream after every block, at the colon of the last `A:`, averaged over thirty prompts of text examples.
const vector = await extractTaskVector(context, split, { spec: 'text' });
const layer = 2; // a middle layer; `xpatch demo` chooses it on validation items

const rows = [];
const countries = split.test.slice(0, 5);
for (const country of countries) {
  const picture = await model.prompt(queryPrompt(country, 'image')); // Q:<flag>\nA:
  const examples = await model.prompt(fewShotPrompt(split.test.slice(5, 10), 'text', country, 'image'));
  rows.push(
    { prompt: picture },
    { prompt: examples },
    { prompt: picture, interventions: [vector.toIntervention(layer, { position: 'delimiter' })] },
  );
}

// All fifteen rows go through the model together; what they share is computed once.
const answers = await context.generate(rows, { maxTokens: 12, stop: ['\n'] });
countries.forEach((country, i) => {
  const [bare, prompted, patched] = answers.slice(3 * i).map((answer) => answer.text);
  console.log(`flag of ${country.input}: expected ${country.output}`);
  console.log(`  nothing: ${bare} | text examples in the prompt: ${prompted} | text vector patched in: ${patched}`);
});
