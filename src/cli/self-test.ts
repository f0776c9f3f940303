import type { Intervention } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import { loadModel } from '../model/load-model.js';
import type { Model } from '../model/model.js';
import { queryPrompt } from '../tasks/prompts.js';
import { splitTask } from '../tasks/split.js';
import { loadTask } from '../tasks/task.js';
import { firstTokens } from '../tasks/token-classes.js';
import { counted, plural } from '../util/counted.js';
import { extractTaskVector } from '../vectors/extract.js';

export interface SelfTestOptions {
  model: string;
  mmproj?: string;
  device: string;
}

/** One thing that was tried. */
export interface Check {
  name: string;
  ok: boolean;
  /** What was measured, or why it failed. */
  detail: string;
}

/** The task with the fewest different answers, so the one whose vector works in the weakest models. */
const TASK = 'food-color';
const SEED = 1;
const PROMPTS = 5;
const QUERIES = 8;
/** This many more right answers than without the patch count as an effect. */
const GAIN = 3;

/**
 * Loads a model, patches it and checks the effect: a state patched onto itself changes no bit, and a
 * task vector from text examples makes the model do the task on picture queries (on text queries without an mmproj).
 */
export async function selfTest(
  options: SelfTestOptions,
  onCheck: (check: Check) => void,
  onTrial?: () => void,
): Promise<void> {
  const { model: source, mmproj, device } = options;
  await using model = await loadModel(source, { mmproj, device, onTrial });
  const context = await model.createContext();
  const { name, architecture, nLayers, nEmbd } = model.identity;
  const detail = `${name || source}: ${architecture}, ${counted(nLayers, 'layer')} of width ${nEmbd}, ${model.hasVision ? 'with' : 'without'} pictures`;
  onCheck({ name: 'the model loads', ok: true, detail });
  onCheck({ name: 'a patched state is what later layers see', ...(await identityPatch(model, context)) });
  onCheck({ name: 'a task vector changes the answers', ...(await taskPatch(model, context)) });
}

type Outcome = Omit<Check, 'name'>;

async function identityPatch(model: Model, context: Context): Promise<Outcome> {
  const prompt = await model.prompt('Q:France\nA:');
  const run = (interventions: Intervention[]) =>
    context.run({ prompt, interventions, capture: { positions: 'last' }, logits: 'last' });
  const plain = await run([]);
  const itself = plain.states.layers.map(
    (layer): Intervention => ({ layers: layer, op: 'replace', value: plain.states.at(layer) }),
  );
  const same = await run(itself);
  const differing = same.logits.data.filter((logit, i) => !Object.is(logit, plain.logits.data[i])).length;
  if (differing > 0) return { ok: false, detail: `a state patched onto itself changed ${differing} logits` };
  const zeroed = await run([{ layers: 0, op: 'zero' }]);
  if (zeroed.logits.data.every((logit, i) => logit === plain.logits.data[i])) {
    return { ok: false, detail: 'a state patched with zeros changed no logit' };
  }
  const detail = `patched onto itself at all ${counted(itself.length, 'layer')}: ${plain.logits.data.length} logits bit-identical; zeros change them`;
  return { ok: true, detail };
}

async function taskPatch(model: Model, context: Context): Promise<Outcome> {
  const pictures = model.hasVision;
  const split = splitTask(await loadTask(TASK, { pictures }), SEED, { pictures, test: QUERIES });
  const vector = await extractTaskVector(context, split, { spec: 'text', prompts: PROMPTS });
  const queries = await Promise.all(
    split.test.map(async (item) => ({
      firstTokens: await firstTokens(model, item.output),
      prompt: await model.prompt(queryPrompt(item, pictures ? 'image' : 'text')),
    })),
  );
  const edits: Intervention[][] = [[], ...vector.info.layers.map((layer) => [vector.at(layer)])];
  const rows = edits.flatMap((interventions) => queries.map(({ prompt }) => ({ prompt, interventions, topK: 1 })));
  const results = await context.pass(rows);
  const [without = 0, ...patched] = edits.map((_, row) => {
    const tops = results.slice(row * queries.length, (row + 1) * queries.length);
    return tops.filter(({ top }, i) => queries[i]?.firstTokens.includes(top?.[0]?.token as number)).length;
  });
  const best = Math.max(...patched);
  const detail =
    `${TASK} from text examples into ${queries.length} ${pictures ? 'picture' : 'text'} ${plural(queries.length, 'query', 'queries')}: ` +
    `without the patch ${without} of ${queries.length} begin right, with it (layer ${patched.indexOf(best)}) ${best} of ${queries.length}`;
  if (best >= without + GAIN) return { ok: true, detail };
  const weak = 'A model too weak for the task fails here even if the installation works; the shipped demo does not.';
  return { ok: false, detail: `${detail}\n${weak}` };
}
