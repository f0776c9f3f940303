// A process that loads what it is told and answers with what came of it; forked by damage.ts. Whatever ends this process
// instead of an answer (a signal, a hang) is a failure of the runtime.
import { loadModel } from '../../dist/index.js';

let trials = 0;

/** Loads the model, reads states and the next token of a short prompt, with a picture where there is an encoder. */
async function attempt({ model: path, mmproj, picture, tokens }) {
  const model = await loadModel(path, { mmproj, device: 'cpu', threads: 1, onTrial: () => trials++ });
  try {
    const context = await model.createContext({ nCtx: 512, nUbatch: 64 });
    const parts = [{ tokens }];
    if (picture) parts.push({ image: picture });
    if (model.info.hasTokenizer) parts.push('Q:Sweden A:');
    const prompt = await model.prompt(parts);
    await context.generate([{ prompt, capture: { layers: 'all', positions: 'last' } }], { maxTokens: 2 });
  } finally {
    await model.dispose();
  }
}

process.on('message', async (task) => {
  trials = 0;
  const tried = () => (trials > 0 ? { trials } : {});
  try {
    await attempt(task);
    process.send({ outcome: 'loaded', ...tried() });
  } catch (error) {
    const coded = error?.name === 'XpatchError';
    process.send({
      outcome: coded ? error.code : 'uncoded',
      message: coded ? error.message : String(error?.stack ?? error),
      ...tried(),
    });
  }
});
