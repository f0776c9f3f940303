// The tools of this library beside the same things computed with transformers (reference.py): steered tokens, a patching map, effects
// of heads, direct logit attribution.
//
//   node scripts/against-transformers/compare.mjs MODEL.gguf REFERENCE.json
//
// MODEL.gguf holds the weights that the reference was made with, in F32. Prints a table; the exit status is 1 if a difference is
// larger than its bound. Needs a build (`npm run build`).
import { readFileSync } from 'node:fs';
import { argv } from 'node:process';
import { attributeLogits, headEffects } from '../../dist/experiment.js';
import { loadModel, logitDifference, patchLayers, steeringVector } from '../../dist/index.js';

const [, , path, file] = argv;
const reference = JSON.parse(readFileSync(file, 'utf8'));
const { inputs } = reference;
const tokens = (ids) => ({ tokens: ids });

const model = await loadModel(path, { device: 'cpu', threads: 1 });
if (model.identity.hash !== reference.model.sha256) throw new Error(`The reference is of another file than ${path}.`);
const context = await model.createContext({ kvType: 'f32' });

const largest = (a, b) => a.flat().reduce((most, x, i) => Math.max(most, Math.abs(x - b.flat()[i])), 0);

async function steered() {
  const { layer, strength, tokens: wanted, plain } = reference.steering;
  const direction = await steeringVector(context, {
    positive: inputs.positive.map(tokens),
    negative: inputs.negative.map(tokens),
    layers: [layer],
  });
  const prompt = tokens(inputs.prompt);
  const interventions = [direction.at(layer, { strength, positions: 'all', steps: 'all' })];
  let different = 0;
  for (const [row, said] of [
    [{ prompt, interventions }, wanted],
    [{ prompt }, plain],
  ]) {
    const [found] = await context.generate([row], { maxTokens: said.length });
    different += said.filter((token, i) => token !== found.tokens[i]).length;
  }
  return [`tokens that differ, of ${wanted.length} with steering and ${plain.length} without`, different, 0];
}

async function map() {
  const { clean, corrupt, values } = reference.map;
  const [from, into] = [tokens(inputs.from), tokens(inputs.into)];
  const found = await patchLayers(context, { from, into, metric: logitDifference(inputs.right, inputs.wrong) });
  const difference = largest([clean, corrupt, values.flat()], [found.clean, found.corrupt, [...found.values]]);
  return [`patching map, ${values.length} layers x ${values[0].length} positions: logit difference`, difference, 1e-4];
}

async function heads() {
  const { plain, effects } = reference.heads;
  const corrupt = inputs.shuffled.map(([ids, answer]) => ({ prompt: tokens(ids), answer }));
  const found = await headEffects(context, { prompts: inputs.shown.map(tokens), corrupt });
  const difference = largest([plain, effects.flat()], [found.plain, [...found.effects.values]]);
  const most = Math.max(...effects.flat().map(Math.abs));
  const what = `indirect effects of ${effects.flat().length} heads, the largest ${most.toPrecision(2)}: probability`;
  return [what, difference, Math.min(1e-3, most / 100)];
}

async function attribution() {
  const { difference: wanted, embed, ...parts } = reference.attribution;
  const { right, wrong } = inputs;
  const found = await attributeLogits(context, tokens(inputs.from), { right, wrong });
  const sum = found.parts.reduce((total, { value }) => total + value, 0);
  const of = (part, layer) => found.parts.find((one) => one.part === part && one.layer === layer).value;
  const each = Object.entries(parts).flatMap(([part, values]) => values.map((x, layer) => x - of(part, layer)));
  const most = Math.max(...[embed - of('embed'), ...each].map(Math.abs));
  return [
    ['attribution: sum of the parts - logit difference of transformers', Math.abs(sum - wanted), 1e-3],
    [`attribution: each of ${each.length + 1} parts`, most, 1e-3],
  ];
}

const rows = [await steered(), await map(), await heads(), ...(await attribution())];
console.log(`${model.identity.name}, ${reference['made with']}\n`);
console.log('| what | largest difference | bound |\n| --- | --- | --- |');
for (const [what, difference, bound] of rows) {
  console.log(
    `| ${what} | ${Number.isInteger(difference) ? difference : difference.toExponential(1)} | ${Number(bound.toPrecision(1))} |`,
  );
}
await model.dispose();
if (rows.some(([, difference, bound]) => !(difference <= bound))) process.exitCode = 1;
