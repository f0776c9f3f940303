// A file as sets for visual question answering have it: pictures, questions and answers. Two questions about the shipped foods;
// `xpatch data import` makes a task of one of them:
//
//   npx tsx examples/question-file.ts questions.json
//   npx xpatch data import questions.json --images data/images/twemoji --question "What is the color of the food?" -o colors.json
//   npx xpatch eval vqa -m demo --set tasks=[./colors.json]

import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { loadTask } from 'xpatch';

const [file = 'questions.json'] = process.argv.slice(2);
const tasks = await Promise.all(['food-color', 'food-flavor'].map((name) => loadTask(name, { pictures: true })));
const entries = tasks.flatMap(({ question, items }) =>
  items.flatMap(({ image, output }) =>
    image === undefined ? [] : [{ image: basename(image), question, answer: output }],
  ),
);
await writeFile(file, `${JSON.stringify(entries, null, 1)}\n`);
console.log(`${file}: ${entries.length} questions`);
