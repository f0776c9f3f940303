// Steering vectors, and control-vector files against llama.cpp's own use of them.
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { layOutGguf, text } from '../../src/gguf/gguf-writer.js';
import { steeringVector } from '../../src/vectors/steering.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import { expectError, temporaryFolder } from '../unit/helpers.js';
import { load, logitsOf, randomTokens } from './helpers.js';

const reference: { strength: number; tokens: number[]; logits: Record<string, number[]> } = JSON.parse(
  readFileSync(new URL('../fixtures/control-vectors.json', import.meta.url), 'utf8'),
);
const folder = await temporaryFolder();
const MODELS = Object.keys(reference.logits);

/** The direction of the reference: block l adds sin(0.1 (l n_embd + i)). */
function sines({ nEmbd, nLayers }: { nEmbd: number; nLayers: number }): Float32Array {
  return Float32Array.from({ length: nLayers * nEmbd }, (_, i) => Math.sin(Math.fround(0.1) * i));
}

test.each(MODELS)('a control vector does what llama.cpp does with it: %s', async (name) => {
  const model = await load(name);
  await using context = await model.createContext({ nCtx: 64, flashAttention: 'off' });
  const { identity } = model;
  const layers = Array.from({ length: identity.nLayers }, (_, layer) => layer);
  const origin = { op: 'control-vector', numbering: 'applied' } as const;
  const info = { model: identity, hook: 'resid_post', layers, readPosition: 'unknown', origin } as const;
  const path = join(folder, `${name}.gguf`);
  await new TaskVector(info, sines(identity)).save(path);
  const vector = await TaskVector.load(path);
  expect(vector.info.layers).toEqual(layers.slice(1)); // llama.cpp has no place for block 0
  const interventions = [vector.at(vector.info.layers, { strength: reference.strength, positions: 'all' })];
  const prompt = { tokens: reference.tokens };
  const [plain, steered] = await context.pass([
    { prompt, logits: 'last' },
    { prompt, logits: 'last', interventions },
  ]);
  const wanted = Float32Array.from(reference.logits[name] as number[]);
  expect(relativeDifference(logitsOf(steered), wanted)).toBeLessThan(1e-6);
  expect(relativeDifference(logitsOf(plain), wanted)).toBeGreaterThan(0.01);
});

function relativeDifference(actual: Float32Array, wanted: Float32Array): number {
  const norm = (values: Float32Array) => Math.hypot(...values);
  return norm(actual.map((x, i) => x - (wanted[i] as number))) / norm(wanted);
}

test('the difference of means leads from one kind of prompt to the other', async () => {
  const model = await load('llama');
  await using context = await model.createContext({ nCtx: 256 });
  const prompts = Array.from({ length: 6 }, (_, i) => ({ tokens: randomTokens(model, 5 + i, i) }));
  const [positive, negative] = [prompts.slice(0, 2), prompts.slice(2)];
  const vector = await steeringVector(context, { positive, negative });
  const results = await context.pass(prompts.map((prompt) => ({ prompt, capture: { positions: 'last' } as const })));
  for (const layer of vector.info.layers) {
    const state = vector.state(layer);
    for (const d of state.keys()) {
      const mean = (from: number, to: number) =>
        results.slice(from, to).reduce((sum, { states }) => sum + (states.at(layer)[d] as number), 0) / (to - from);
      expect(state[d]).toBeCloseTo(mean(0, 2) - mean(2, 6), 5);
    }
  }
  expect(vector.at(1)).toMatchObject({ op: 'add', layers: 1 });
  expect(vector.scale(2).op).toBe('add');
  const path = join(folder, 'mean.safetensors');
  await vector.save(path);
  expect((await TaskVector.load(path)).info).toEqual(vector.info);
});

test('two prompts and their opposite make opposite directions, and prompts without a difference none', async () => {
  const model = await load('llama');
  await using context = await model.createContext({ nCtx: 64 });
  const [a, b] = [{ tokens: [5, 6, 7] }, { tokens: [8, 9] }];
  for (const method of ['mean', 'pca'] as const) {
    const there = await steeringVector(context, { positive: [a], negative: [b], method, layers: [1] });
    const back = await steeringVector(context, { positive: [b], negative: [a], method, layers: [1] });
    expect(there.cosine(back)[0]).toBeCloseTo(-1, 6);
  }
  for (const method of ['mean', 'pca'] as const) {
    const same = () => steeringVector(context, { positive: [a, b], negative: [a, b], method });
    await expectError(same, 'VECTOR_INVALID', /no direction/);
  }
  const vector = await steeringVector(context, { positive: [a], negative: [b] });
  for (const op of ['project', 'clamp', 'constructor', ''])
    await expectError(async () => vector.at(1, { op: op as 'add' }), 'INTERVENTION_INVALID', /replace or add/);
  await expectError(
    () => steeringVector(context, { positive: [a, b], negative: [b], method: 'pca' }),
    'INVALID_ARGUMENT',
    /pairs/,
  );
  await expectError(() => steeringVector(context, { positive: [], negative: [b] }), 'INVALID_ARGUMENT', /no positive/);
});

test('stops while its prompts are read, however many there are', async () => {
  const model = await load('llama');
  await using context = await model.createContext({ nCtx: 64 });
  const controller = new AbortController();
  let read = 0;
  const many = Array.from({ length: 100_000 }, () => ({
    get tokens() {
      read++;
      return [5, 6];
    },
  }));
  setTimeout(() => controller.abort(), 50);
  const making = steeringVector(context, { positive: many, negative: many, signal: controller.signal });
  await expectError(() => making, 'ABORTED', /aborted/);
  expect(read).toBeGreaterThan(0);
  expect(read).toBeLessThan(2 * many.length);
});

test('a control vector is of outputs of blocks, and of nothing else', async () => {
  const model = await load('llama');
  await using context = await model.createContext({ nCtx: 64 });
  const [{ captured }] = await context.pass([
    {
      prompt: { tokens: [5, 6] },
      captures: (['resid_pre', 'z', 'attn_out'] as const).map((hook) => ({ hook, positions: 'last' })),
    },
  ]);
  for (const states of captured) {
    const origin = { op: 'capture', position: 1, token: 1 } as const;
    const vector = TaskVector.fromStates(states, { model: context.model.identity, readPosition: 'position', origin });
    await expectError(
      () => vector.save(join(folder, 'other.gguf')),
      'VECTOR_INVALID',
      new RegExp(`states at '${states.hook}'.*safetensors`),
    );
  }
  expect(existsSync(join(folder, 'other.gguf'))).toBe(false);
});

test('the numbering of cvector-generator is one block later', async () => {
  const path = join(folder, 'measured.gguf');
  await writeControlFile(path, { 'direction.1': [1, 2], 'direction.3': [3, 4] });
  const applied = await TaskVector.load(path);
  const measured = await TaskVector.load(path, { numbering: 'measured' });
  expect([applied.info.layers, measured.info.layers]).toEqual([
    [1, 3],
    [0, 2],
  ]);
  expect([...measured.state(2)]).toEqual([3, 4]);
  expect(measured.info.origin).toEqual({ op: 'control-vector', numbering: 'measured' });
});

test.each<[string, Record<string, number[]>, RegExp]>([
  ['no direction', { 'token_embd.weight': [1, 2] }, /no tensor direction\.N/],
  ['two widths', { 'direction.1': [1, 2], 'direction.2': [1, 2, 3] }, /wide/],
  ['a number that is none', { 'direction.1': [1, Number.NaN] }, /NaN/],
])('a control vector with %s is refused', async (_, tensors, message) => {
  const path = join(folder, 'bad.gguf');
  await writeControlFile(path, tensors);
  await expectError(() => TaskVector.load(path), 'VECTOR_INVALID', message);
});

test('a control vector has no position, other vectors no numbering, and layer 0 alone no file', async () => {
  const path = join(folder, 'measured.gguf');
  await expectError(() => TaskVector.load(path, { position: 1 }), 'INVALID_ARGUMENT', /no position/);
  const saved = join(folder, 'mean.safetensors');
  await expectError(() => TaskVector.load(saved, { numbering: 'applied' }), 'INVALID_ARGUMENT', /numbering/);
  const model = { hash: '', architecture: 'llama', name: 'x', nEmbd: 2, nLayers: 3 };
  const origin = { op: 'control-vector', numbering: 'applied' } as const;
  const info = { model, hook: 'resid_post', layers: [0], readPosition: 'unknown', origin } as const;
  await expectError(() => new TaskVector(info, [1, 2]).save(path), 'VECTOR_INVALID', /layer 0/);
  expect(readFileSync(path).length).toBeGreaterThan(0);
});

async function writeControlFile(path: string, tensors: Record<string, number[]>): Promise<void> {
  const layouts = Object.entries(tensors).map(([name, values]) => ({ name, shape: [values.length], type: 0 }));
  const { header, places, size } = layOutGguf({ 'general.architecture': text('controlvector') }, layouts);
  const bytes = Buffer.alloc(size);
  bytes.set(header);
  Object.values(tensors).forEach((values, i) => {
    bytes.set(Buffer.from(Float32Array.from(values).buffer), places[i]?.offset);
  });
  await writeFile(path, bytes);
}
