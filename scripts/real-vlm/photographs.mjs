// Task files about the animals and foods of which there are photographs: each item with one that was kept back from training if there
// is one, else with one that was trained on. Things of which training showed no picture at all are left out.
//
//   node scripts/real-vlm/photographs.mjs STAMPS OUT          STAMPS is the folder that train.py unpacks into its cache
//
// With docs/results/real-photographs.yaml, for `xpatch eval real-photographs.yaml -m gemma-3-270m-xpatch` in OUT.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const [stamps, out] = process.argv.slice(2);
if (out === undefined) throw new Error('Name the folder of photographs, and one to write to.');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const json = (...path) => JSON.parse(readFileSync(join(ROOT, ...path), 'utf8'));

const { entities, photographed, photographs } = json('scripts', 'real-vlm', 'splits.json');
const [, ...lines] = readFileSync(join(ROOT, 'scripts', 'real-vlm', 'photographs.tsv'), 'utf8')
  .trim()
  .split('\n');
const pictures = new Map();
const back = new Set();
for (const [file, name] of lines.map((line) => line.split('\t'))) {
  const keptBack = photographed.includes(name) || photographs.includes(file);
  if (entities.includes(name) || back.has(name) || (pictures.has(name) && !keptBack)) continue;
  pictures.set(name, resolve(stamps, file));
  if (keptBack) back.add(name);
}

mkdirSync(out, { recursive: true });
copyFileSync(join(ROOT, 'docs', 'results', 'real-photographs.yaml'), join(out, 'real-photographs.yaml'));
for (const task of ['animal-latin', 'animal-young', 'food-color', 'food-flavor']) {
  const items = json('data', 'tasks', `${task}.json`)
    .filter(({ input }) => pictures.has(input))
    .map(({ input, output }) => ({ input, output, image: pictures.get(input) }));
  writeFileSync(join(out, `${task}-photographs.json`), `${JSON.stringify(items, null, 1)}\n`);
  const kept = items.map(({ input }) => input).filter((name) => back.has(name));
  console.log(`${task}: ${items.length} items; photographs kept back from training: ${kept.join(', ')}`);
}
