// Does the exported model tokenise, predict and patch in llama.cpp as it does in PyTorch? Run parity.py first, then
//   node scripts/demo-model/parity.mjs [folder of the GGUF files]
// Exits with 1 when a string tokenises differently or a logit is off by more than 0.1.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadModel } from '../../dist/index.js';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = process.argv[2] ?? here('../../models/demo');
const { texts, cases, pixels } = JSON.parse(readFileSync(here('cache/parity.json'), 'utf8'));
const model = await loadModel(`${folder}/xpatch-demo-f16.gguf`, {
  mmproj: `${folder}/mmproj-xpatch-demo-f16.gguf`,
  device: 'cpu',
});
const context = await model.createContext({ nCtx: 512 });

let different = 0;
for (const { text, tokens } of texts) {
  const prompt = await model.prompt([text]);
  if (JSON.stringify([...prompt.tokens]) !== JSON.stringify(tokens)) {
    if (different++ < 5)
      console.log('differs:', JSON.stringify(text), [...prompt.tokens].join(' '), 'not', tokens.join(' '));
  }
}
console.log(`${texts.length} strings, ${different} tokenised differently`);

const image = (index) => ({ image: { data: Uint8Array.from(pixels[index]), width: 64, height: 64 } });
const promptOf = (parts) =>
  model.prompt(parts.map((part) => (part.tokens ? { tokens: part.tokens } : image(part.picture))));
let worst = 0;
let agree = 0;
for (const { kind, task, parts, logits, donor, layer } of cases) {
  let interventions = [];
  if (donor) {
    const [{ states }] = await context.pass([
      { prompt: await promptOf(donor), capture: { layers: [layer], positions: 'last' } },
    ]);
    interventions = [{ hook: 'resid_post', layer, positions: 'last', op: 'replace', value: states.data }];
  }
  const [result] = await context.pass([{ prompt: await promptOf(parts), interventions, logits: 'last' }]);
  const got = result.logits.data;
  const error = Math.max(...logits.map((value, i) => Math.abs(value - got[i])));
  worst = Math.max(worst, error);
  agree += got.indexOf(Math.max(...got)) === logits.indexOf(Math.max(...logits));
  if (error > 0.1) console.log(`${task}, ${kind}: logits differ by up to ${error}`);
}
console.log(`${cases.length} prompts, largest logit difference ${worst.toFixed(4)}, same top token in ${agree}`);
await model.dispose();
if (different > 0 || worst > 0.1) process.exit(1);
