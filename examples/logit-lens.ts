// What do the hidden states say? A prompt read layer by layer, and a picture read patch by patch.
//
//   npx tsx examples/logit-lens.ts
import { fileURLToPath } from 'node:url';
import { loadModel, logitLens, patchRectangle } from 'xpatch';

await using model = await loadModel('demo');
const context = await model.createContext();

const text = await model.prompt('Q:Peru\nA:Lima\n\nQ:Japan\nA:');
const [pass] = await context.pass([{ prompt: text, capture: { layers: 'all', positions: 'last' } }]);
const lens = await logitLens(context, pass, { topK: 3 });
for (const [l, layer] of lens.layers.entries()) {
  for (const { top, kl } of lens.cells[l] ?? []) {
    const best = top.map(({ text, probability }) => `${text} ${probability.toFixed(2)}`).join('  ');
    console.log(`layer ${layer}: ${best} (KL to the last layer ${kl.toFixed(2)})`);
  }
}
console.log(`the answer is settled from layer ${lens.settled[0]} on`);

const flag = fileURLToPath(new URL('../data/images/twemoji/peru.png', import.meta.url));
const question = await model.prompt(['Q:', { image: flag }, '\nA:']);
for (const { first, nRows } of question.pictures) {
  const rows = Array.from({ length: nRows }, (_, i) => first + i);
  const [seen] = await context.pass([{ prompt: question, capture: { layers: [7], positions: rows } }]);
  const { cells } = await logitLens(context, seen, { topK: 1 });
  for (const [i, position] of rows.slice(0, 4).entries()) {
    const { x, y, width, height } = patchRectangle(question, position);
    const word = cells[0]?.[i]?.top[0]?.text;
    console.log(`patch at ${x},${y} of ${width} x ${height} pixels: ${JSON.stringify(word)}`);
  }
}
