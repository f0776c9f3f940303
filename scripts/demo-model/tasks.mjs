// Writes data/tasks/*.json from the fact tables in data/facts/. Run: node scripts/demo-model/tasks.mjs
import { mkdirSync, writeFileSync } from 'node:fs';
import { facts, hasPicture, ROOT, slug } from './facts.mjs';

// domain, column, instruction, question, task word
const TASKS = {
  'country-capital': [
    'country',
    'capital',
    'The capital city of the country:',
    'What is the capital city of the country?',
    'capital',
  ],
  'country-currency': [
    'country',
    'currency',
    'The last word of the official currency of the country:',
    'What is the last word of the official currency of the country?',
    'currency',
  ],
  'animal-latin': [
    'animal',
    'latin',
    "The scientific name of the animal's species in latin:",
    "What is the scientific name of the animal's species in latin?",
    'species',
  ],
  'animal-young': [
    'animal',
    'young',
    'The term for the baby of the animal:',
    'What is the term for the baby of the animal?',
    'baby',
  ],
  'food-color': ['food', 'color', 'The color of the food:', 'What is the color of the food?', 'color'],
  'food-flavor': [
    'food',
    'flavor',
    'The flavor descriptor of the food:',
    'What is the flavor descriptor of the food?',
    'flavor',
  ],
};

mkdirSync(`${ROOT}/data/tasks`, { recursive: true });
const index = {};
for (const [task, [domain, column, instruction, question, taskWord]] of Object.entries(TASKS)) {
  const items = facts[domain]
    .filter((fact) => fact[column] !== '')
    .map((fact) => ({
      input: fact.name,
      output: fact[column],
      ...(hasPicture(domain, fact) ? { image: `${slug(fact.name)}.png` } : {}),
    }));
  const lines = items.map((item) => `  ${JSON.stringify(item)}`);
  writeFileSync(`${ROOT}/data/tasks/${task}.json`, `[\n${lines.join(',\n')}\n]\n`);
  index[task] = { domain, instruction, question, taskWord };
  console.log(task, items.length, 'items,', items.filter((item) => item.image).length, 'with a picture');
}
writeFileSync(`${ROOT}/data/tasks/index.json`, `${JSON.stringify(index, null, 2)}\n`);
