// A file as sets for visual question answering have it, pictures with questions and answers: two questions about the shipped foods.
// `xpatch data import` makes a task of one of them:
//
//   node --import tsx examples/question-file.ts > questions.json
//   xpatch data import questions.json --images-root data/images/twemoji --question "What is the color of the food?" -o colors.json
//   xpatch eval vqa -m demo --set tasks=[./colors.json]

import { basename } from 'node:path';
import { loadTask } from 'xpatch';

const tasks = await Promise.all(['food-color', 'food-flavor'].map((name) => loadTask(name, { pictures: true })));
const entries = tasks.flatMap(({ question, items }) =>
  items.flatMap(({ image, output: answer }) =>
    image === undefined ? [] : [{ image: basename(image), question, answer }],
  ),
);
console.log(JSON.stringify(entries, null, 1));
