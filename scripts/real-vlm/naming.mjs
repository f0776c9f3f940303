// Which name does the model give a picture, of all names of its kind? Greedy, token by token, after `<picture> This is`.
//
//   node scripts/real-vlm/naming.mjs OUT.json [-m MODEL] [--mmproj FILE] [--style STYLE] [--stamps FOLDER]
//
// Writes a list of { kind, style, picture, name, said }. The pictures are the shipped ones in STYLE, Twemoji by default, and with
// --stamps the photographs that were kept back from training.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { loadModel } from '../../dist/index.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const LEAD = ' This is';
const TOGETHER = 8;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string', short: 'm', default: 'gemma-3-270m-xpatch' },
    mmproj: { type: 'string' },
    style: { type: 'string', default: 'twemoji' },
    stamps: { type: 'string' },
  },
});
const [out] = positionals;
if (out === undefined) throw new Error('Name a file for the answers.');

const json = (...path) => JSON.parse(readFileSync(join(ROOT, ...path), 'utf8'));
const index = json('data', 'tasks', 'index.json');
const named = {};
const pictures = [];
for (const kind of ['country', 'animal', 'food']) {
  const tasks = Object.keys(index).filter((task) => index[task].domain === kind);
  const items = new Map(
    tasks.flatMap((task) => json('data', 'tasks', `${task}.json`)).map((item) => [item.input, item]),
  );
  named[kind] = [...items.keys()];
  for (const { input: name, image } of items.values()) {
    const file = image && join(ROOT, 'data', 'images', values.style, image);
    if (file && existsSync(file)) pictures.push({ kind, style: values.style, picture: image, name, file });
  }
}
for (const { file: picture, name, kind } of values.stamps ? photographs() : []) {
  if (!named[kind].includes(name)) named[kind].push(name);
  pictures.push({ kind, style: 'photograph', picture, name, file: join(values.stamps, picture) });
}

/** The photographs that were kept back. */
function photographs() {
  const { entities, photographed, photographs: files } = json('scripts', 'real-vlm', 'splits.json');
  const [, ...lines] = readFileSync(join(ROOT, 'scripts', 'real-vlm', 'photographs.tsv'), 'utf8')
    .trim()
    .split('\n');
  return lines
    .map((line) => line.split('\t'))
    .map(([file, name]) => ({ file, name, kind: file.startsWith('animals/') ? 'animal' : 'food' }))
    .filter(({ file, name }) => !entities.includes(name) && (photographed.includes(name) || files.includes(file)));
}

const model = await loadModel(values.model, { mmproj: values.mmproj, threads: 1 });
const context = await model.createContext();
const lead = model.tokenize(LEAD).length;
const trees = Object.fromEntries(Object.entries(named).map(([kind, names]) => [kind, treeOf(names)]));

/** Tokens of all names as a tree; a leaf holds the name. What ends a name, a full stop, is the last token of each. */
function treeOf(names) {
  const tree = new Map();
  for (const name of names) {
    let at = tree;
    const tokens = [...model.tokenize(`${LEAD} ${name}.`)].slice(lead);
    for (const [i, token] of tokens.entries()) {
      if (!at.has(token)) at.set(token, i === tokens.length - 1 ? name : new Map());
      at = at.get(token);
    }
  }
  return tree;
}

const answers = [];
for (let begin = 0; begin < pictures.length; begin += TOGETHER) {
  const some = pictures.slice(begin, begin + TOGETHER);
  let open = await Promise.all(
    some.map(async (one) => ({ one, at: trees[one.kind], prompt: await model.prompt([{ image: one.file }, LEAD]) })),
  );
  while (open.length > 0) {
    const results = await context.pass(open.map(({ prompt }) => ({ prompt, logits: 'last' })));
    for (const [i, { logits }] of results.entries()) {
      const row = open[i];
      const best = [...row.at.keys()].reduce((a, b) => (logits.data[b] > logits.data[a] ? b : a));
      row.at = row.at.get(best);
      row.prompt = row.prompt.append([best]);
    }
    for (const { one, at } of open) if (typeof at === 'string') answers.push({ ...one, said: at });
    open = open.filter(({ at }) => typeof at !== 'string');
  }
  console.error(`${answers.length} of ${pictures.length}`);
}
await model.dispose();
writeFileSync(
  out,
  JSON.stringify(
    answers.map(({ file, ...answer }) => answer),
    null,
    1,
  ),
);
