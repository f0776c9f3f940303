// The same experiment done in two ways: by the engine, and one prompt, one layer at a time through the same runtime.

import { experimentOf } from '../dist/experiment/config.js';
import { LayerChoice } from '../dist/experiment/layer-choice.js';
import { memoryStore } from '../dist/experiment/memory-store.js';
import { PRESETS } from '../dist/experiment/presets.js';
import { runExperiment } from '../dist/experiment/run.js';
import { tokenScore } from '../dist/experiment/scores.js';
import { lenientMatch } from '../dist/experiment/scoring.js';
import { conditionsOf, groupByPrompt, itemsOf, prepareStudy } from '../dist/experiment/study.js';
import { keyOf } from '../dist/experiment/types.js';
import { promptsOf, sourcesOf, vectorOf } from '../dist/experiment/vectors.js';
import { answerTokens } from '../dist/tasks/answer-tokens.js';
import { TaskVector } from '../dist/vectors/task-vector.js';

/** The preset `main` with one seed, on two tasks and in other sizes if need be; with text queries and without pictures unless `pictures`. */
export function mainExperiment(sizes, pictures) {
  const isText = ({ spec }) => spec !== 'image';
  const { conditions } = PRESETS.main.config;
  const config = { preset: 'main', tasks: ['food-color', 'food-flavor'], seeds: [1], ...sizes };
  if (!pictures) Object.assign(config, { query: 'text', conditions: conditions.filter(isText) });
  return experimentOf(config, { name: 'main' }).experiment;
}

/** Answers by key, `{ answer }`, through the engine, so many items at a time. */
export async function throughEngine(context, experiment, parallel) {
  const store = memoryStore();
  await runExperiment(context, experiment, store, { parallel });
  const answers = new Map();
  for await (const line of store.lines())
    if (line.prompt || line.stage === 'validation') answers.set(keyOf(line), { answer: line.answer });
  return answers;
}

/**
 * The same answers, `{ answer, lead }`, where `lead()` is how many nats the closest choice of a token was ahead of the next best; each by a call of its own that decodes its whole prompt, one prompt and one layer at a time: a vector is read
 * again for each layer that it is patched at, a picture is encoded again for each prompt (unless the model keeps them).
 */
export async function oneByOne(context, experiment) {
  const { model } = context;
  const study = await prepareStudy(model, experiment);
  const choice = new LayerChoice(experiment);
  const vectors = new Map();
  const answers = new Map();

  /** Mean state of a vector's prompts at one layer. */
  const read = async (wanted, layer) => {
    const key = `${wanted.name}, layer ${layer}`;
    if (vectors.has(key)) return vectors.get(key);
    const states = [];
    for (const parts of promptsOf(study, wanted)) {
      const prompt = await model.prompt(parts);
      const capture = { layers: [layer], positions: ['delimiter'] };
      const [result] = await context.pass([{ prompt, capture }]);
      const origin = { op: 'capture', position: prompt.position('delimiter'), token: 0 };
      states.push(TaskVector.fromStates(result.states, { model: model.identity, readPosition: 'position', origin }));
    }
    const mean = TaskVector.mean(states);
    vectors.set(key, mean);
    return mean;
  };
  const valueAt = async (wanted, layer) => {
    const [source] = sourcesOf(study, wanted);
    const { nLayers } = model.info;
    if (wanted.control === 'random-vector') {
      return (await read(source, layer)).normMatchedRandom(wanted.cell.split.seed).state(layer);
    }
    if (wanted.control !== 'wrong-layer') return (await read(wanted, layer)).state(layer);
    const other = (layer + nLayers - Math.ceil(nLayers / 2)) % nLayers;
    return (await read(source, other)).state(other);
  };
  const editFor = async (cell, condition, layer, parts) => {
    const wanted = vectorOf(study, cell, condition);
    const edit = { hook: 'resid_post', layers: layer, positions: 'delimiter', op: 'replace' };
    if (wanted) return { ...edit, value: await valueAt(wanted, layer) };
    const prompt = await model.prompt(parts);
    const [{ states }] = await context.pass([{ prompt, capture: { layers: [layer], positions: ['delimiter'] } }]);
    return { ...edit, value: states.data };
  };

  const leadOf = async ({ parts, interventions }, tokens) => {
    let least = Number.POSITIVE_INFINITY;
    for (let n = 0; n < tokens.length; n++) {
      const prompt = await model.prompt([...parts, { tokens: tokens.slice(0, n) }]);
      const [{ top }] = await context.pass([{ prompt, interventions, topK: 2 }]);
      least = Math.min(least, top[0].logit - top[1].logit);
    }
    return least;
  };

  const run = async (stage, layers) => {
    for (const cell of study.cells) {
      const { task, seed } = cell.split;
      for (const item of itemsOf(cell, stage)) {
        for (const { parts, conditions } of groupByPrompt(study, cell, stage, conditionsOf(study, stage), item)) {
          for (const condition of conditions) {
            for (const layer of condition.kind === 'patch' ? layers : [undefined]) {
              const interventions = layer === undefined ? [] : [await editFor(cell, condition, layer, parts)];
              const row = { parts, prompt: await model.prompt(parts), interventions };
              const key = { stage, condition: condition.name, task: task.name, seed, item: item.input, layer };
              if (stage === 'validation') {
                const [{ top }] = await context.pass([{ ...row, topK: 1 }]);
                const [{ text: answer, token }] = top;
                answers.set(keyOf(key), { answer, lead: () => leadOf(row, [token]) });
                choice.add({ ...key, lenient: lenientMatch(answer, item.output) });
              } else {
                const how = { maxTokens: experiment.maxTokens, stop: [study.format.stop] };
                const [{ text, tokens, logits }] = await context.generate([{ ...row, logits: 'last' }], how);
                tokenScore(logits.data, answerTokens(model, parts, item.output)[0]);
                answers.set(keyOf(key), { answer: text, lead: () => leadOf(row, tokens) });
              }
            }
          }
        }
      }
    }
  };
  await run(
    'validation',
    Array.from({ length: model.info.nLayers }, (_, layer) => layer),
  );
  await run('test', [choice.best()]);
  return answers;
}

/** Gives a model without a tokenizer one that cuts text about as finely as real ones do; its tokens are read as their ids. */
export function lendTokenizer(model) {
  const idOf = (piece) => [...piece].reduce((id, c) => (id * 31 + c.codePointAt(0)) % 49000, 7) + 10;
  model.tokenize = (text) => Int32Array.from(text.match(/[A-Za-z]{1,4}|[^A-Za-z]/gu) ?? [], idOf);
  model.tokenBytes = (tokens) => Buffer.from(Array.from(tokens, (token) => `<${token}>`).join(''));
}
