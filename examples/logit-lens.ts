// What do the hidden states say? A prompt read layer by layer, and a picture read patch by patch.
//
//   node --import tsx examples/logit-lens.ts
import { fileURLToPath } from 'node:url';
import { loadModel, logitLens, patchRectangle } from 'xpatch';

await using model = await loadModel('demo');
await using context = await model.createContext();

const { states } = await context.run({ prompt: 'Q:Peru\nA:Lima\n\nQ:Japan\nA:', capture: { positions: 'last' } });
const lens = await logitLens(context, states, { topK: 3 });
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
  const rows = { from: first, to: first + nRows - 1 };
  const seen = await context.run({ prompt: question, capture: { layers: [7], positions: rows } });
  const { cells, positions } = await logitLens(context, seen, { topK: 1 });
  for (const [i, position] of positions.slice(0, 4).entries()) {
    const { x, y, width, height } = patchRectangle(question, position);
    const word = cells[0]?.[i]?.top[0]?.text;
    console.log(`patch at ${x},${y} of ${width} x ${height} pixels: ${JSON.stringify(word)}`);
  }
}
