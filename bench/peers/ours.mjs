// The work of the comparison, done with xpatch: by name, each from nothing but what the spec says.

import { experimentOf } from '../../dist/experiment/config.js';
import { memoryStore } from '../../dist/experiment/memory-store.js';
import { runExperiment } from '../../dist/experiment/run.js';
import { itemsOf, prepareStudy } from '../../dist/experiment/study.js';
import { promptsOf, vectorOf } from '../../dist/experiment/vectors.js';
import { logitDifference, logitLens, patchLayers } from '../../dist/index.js';
import { answerTokens } from '../../dist/tasks/answer-tokens.js';

const LENS_POSITIONS = 100;
const NEW_TOKENS = 100;
/** Two prompts of the same length, and answers of one token each. */
const MAP = {
  from: 'Q: France\nA: Paris\n\nQ: Italy\nA:',
  into: 'Q: France\nA: Paris\n\nQ: Japan\nA:',
  answers: [' Rome', ' Tokyo'],
};

/** The protocol of `main` for one task and one condition: text examples into text queries. */
export function oneTask() {
  return experimentOf(
    {
      preset: 'main',
      tasks: ['country-capital'],
      seeds: [1],
      query: 'text',
      scores: [],
      conditions: [{ name: 'Text Patch', kind: 'patch', spec: 'text' }],
    },
    { name: 'peers' },
  ).experiment;
}

/** Everything that all sides are given, as token ids. @param length tokens of the long prompt */
export async function specOf(model, length = 600) {
  const experiment = oneTask();
  const study = await prepareStudy(model, experiment);
  const [cell] = study.cells;
  const [condition] = experiment.conditions;
  const idsOf = async (parts) => [...(await model.prompt(parts)).tokens];
  const examples = [];
  for (const parts of promptsOf(study, vectorOf(study, cell, condition))) examples.push(await idsOf(parts));
  const queryOf = (item) => study.format.write({ query: item, queryModality: 'text' });
  const validation = [];
  for (const item of itemsOf(cell, 'validation')) {
    const [{ tokens, first }] = await answerTokens(model, queryOf(item), study.format, [item.output]);
    validation.push({ tokens: await idsOf(queryOf(item)), answer: tokens[first] });
  }
  const test = [];
  for (const item of itemsOf(cell, 'test')) test.push(await idsOf(queryOf(item)));
  const { nEmbd, nVocab } = model.info;
  const stop = [];
  for (let id = 0; id < nVocab; id++) if (model.detokenize([id]).includes(study.format.stop)) stop.push(id);
  const text = examples.flat();
  return {
    prompt: Array.from({ length }, (_, i) => text[i % text.length]),
    vector: Array.from({ length: nEmbd }, (_, i) => Math.sin(i)),
    lensPositions: LENS_POSITIONS,
    steered: text.slice(0, 40),
    strength: 0.5,
    map: {
      from: await idsOf(MAP.from),
      into: await idsOf(MAP.into),
      answers: MAP.answers.map((answer) => model.tokenize(answer)[0]),
    },
    newTokens: NEW_TOKENS,
    evaluation: { examples, validation, test, stop, maxTokens: experiment.maxTokens },
  };
}

/** @returns an action for each piece of work, some of a size; what reads states returns them */
export async function works(context, spec) {
  const { model } = context;
  const prompt = await model.prompt({ tokens: spec.prompt });
  const steered = await model.prompt({ tokens: spec.steered });
  const value = Float32Array.from(spec.vector);
  const { nLayers } = model.info;
  const row = (_, i) => ({
    prompt,
    interventions: [{ layers: i % nLayers, positions: 'last', op: 'replace', value }],
    topK: 5,
  });
  const rows = (length) => Array.from({ length }, row);
  let kept;
  return {
    // The first tokens of the prompt.
    capture_last: async (size = spec.prompt.length) => {
      const beginning = await model.prompt({ tokens: spec.prompt.slice(0, size) });
      return (await context.run({ prompt: beginning, capture: { positions: 'last' }, topK: 1 })).states.data;
    },
    // The last layers.
    capture_all: async (size = nLayers) => {
      const layers = Array.from({ length: size }, (_, i) => nLayers - size + i);
      return (await context.run({ prompt, capture: { layers, positions: 'all' }, topK: 1 })).states.data;
    },
    // Rows, patched at one layer after the other.
    sweep: async (size = nLayers) => void (await context.pass(rows(size))),
    // Bare queries in one call, the best next token of each.
    queries: async (size) => {
      const asked = Array.from({ length: size }, (_, i) => spec.evaluation.test[i % spec.evaluation.test.length]);
      await context.pass(asked.map((tokens) => ({ prompt: { tokens }, topK: 1 })));
    },
    lens: async () => {
      const positions = Array.from({ length: spec.lensPositions }, (_, i) => i);
      kept ??= await context.run({ prompt, capture: { positions } });
      await logitLens(context, kept, { topK: 10 });
    },
    map: async () => {
      const metric = logitDifference(...MAP.answers);
      return (await patchLayers(context, { from: MAP.from, into: MAP.into, metric, hook: 'resid_pre' })).values;
    },
    evaluation: async () => void (await runExperiment(context, oneTask(), memoryStore())),
    steered: async () => {
      const edit = { layers: nLayers >> 1, op: 'add', value, factor: spec.strength, steps: 'all' };
      await context.generate([{ prompt: steered, interventions: [edit] }], { maxTokens: spec.newTokens, stop: [] });
    },
    // llama.cpp and nothing else: no hook is set.
    plain: async () => void (await context.run({ prompt, topK: 1 })),
  };
}
