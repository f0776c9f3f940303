// A task vector from text examples, patched into a picture: the effect in forty lines.
//
//   node --import tsx examples/cross-modal-patch.ts
import { extractTaskVector, fewShotPrompt, loadModel, loadTask, queryPrompt, splitTask } from 'xpatch';

await using model = await loadModel('demo');
await using context = await model.createContext();

// Thirty foods to make the vector from, and others to ask about. Nothing of the test items is in the vector.
const task = await loadTask('food-color', { pictures: true });
const split = splitTask(task, 1, { pictures: true });

// The residual stream after every block, at the colon of the last `A:`, averaged over thirty prompts of text examples.
const vector = await extractTaskVector(context, split, { spec: 'text' });
const layer = 1; // an early layer, as this model needs; `xpatch demo` chooses it on validation items

const rows = [];
const foods = split.test.slice(0, 8);
for (const food of foods) {
  const picture = await model.prompt(queryPrompt(food, 'image')); // Q:<picture>\nA:
  const examples = await model.prompt(fewShotPrompt(split.test.slice(8, 13), 'text', food, 'image'));
  rows.push({ prompt: picture }, { prompt: examples }, { prompt: picture, interventions: [vector.at(layer)] });
}

// All rows go through the model together; what they share is computed once.
const answers = await context.generate(rows, { maxTokens: 12, stop: ['\n'] });
foods.forEach((food, i) => {
  const [bare, prompted, patched] = answers.slice(3 * i).map((answer) => answer.text);
  console.log(`picture of ${food.input}: expected ${food.output}`);
  console.log(`  nothing: ${bare} | text examples in the prompt: ${prompted} | text vector patched in: ${patched}`);
});
