import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { HiddenStates } from '../../src/model/hidden-states.js';
import type { ModelIdentity } from '../../src/model/types.js';
import { recordPrompt } from '../../src/prompt/prompt-record.js';
import { SafetensorsFile, writeSafetensors } from '../../src/util/safetensors.js';
import { TaskVector } from '../../src/vectors/task-vector.js';
import type { TaskVectorInfo, VectorOrigin } from '../../src/vectors/vector-origin.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
const model: ModelIdentity = { hash: 'ab12', architecture: 'llama', name: 'tiny', nEmbd: 3, nLayers: 4 };
const other: ModelIdentity = { ...model, hash: 'cd34', name: 'tiny-vlm', nLayers: 6 };

const prompts = (text: string, seed = 1): VectorOrigin => ({
  op: 'prompts',
  task: 'country-capital',
  spec: 'text',
  shots: 5,
  seed,
  prompts: [{ text, tokens: [1, 2, 3] }],
});
const info: TaskVectorInfo = {
  model,
  hook: 'resid_post',
  layers: [0, 2],
  readPosition: 'last-example',
  origin: prompts('Q:Peru\nA:'),
};
const vector = (data: number[], change: Partial<TaskVectorInfo> = {}) => new TaskVector({ ...info, ...change }, data);

describe('construction', () => {
  test('copies data in and out and freezes the rest', () => {
    const data = new Float32Array([1, 2, 3, 4, 5, 6]);
    const layers = [0, 2];
    const z = new TaskVector({ ...info, layers }, data);
    data[0] = 99;
    layers[0] = 1;
    z.state(0)[1] = 99;
    z.toArray()[2] = 99;
    expect([...z.toArray()]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...z.state(2)]).toEqual([4, 5, 6]);
    expect(z.info.layers).toEqual([0, 2]);
    expect(Object.isFrozen(z.info) && Object.isFrozen(z.info.model) && Object.isFrozen(z.info.layers)).toBe(true);
    expect(() => Object.assign(z.info.model, { name: 'x' })).toThrow(TypeError);
  });

  test('refuses wrong sizes, wrong layers and numbers that are none', async () => {
    await expectError(() => vector([1, 2, 3]), 'VECTOR_INVALID', /3 numbers do not make 2 layers of width 3/);
    await expectError(() => vector([], { layers: [] }), 'VECTOR_INVALID', /0 layers/);
    const six = [1, 2, 3, 4, 5, 6];
    for (const layers of [
      [0, 0],
      [2, 0],
      [0, 4],
      [-1, 0],
      [0, 0.5],
    ]) {
      await expectError(() => vector(six, { layers }), 'VECTOR_INVALID', /must rise within 0 to 3/);
    }
    await expectError(() => vector([1, 2, 3, 4, Number.NaN, 6]), 'VECTOR_INVALID', /NaN at layer 2, dimension 1/);
    await expectError(() => vector([1, 2, 3e39, 4, 5, 6]), 'VECTOR_INVALID', /Infinity at layer 0, dimension 2/);
  });

  test('from captured states takes one position only', async () => {
    const at = { hook: 'resid_post', model } as const;
    const data = new Float32Array([1, 2, 3, 4, 5, 6]);
    const states = new HiddenStates({ ...at, layers: [0, 2], positions: [7], tokens: [25] }, data);
    const made = { model, readPosition: 'last-example', origin: info.origin };
    expect([...TaskVector.fromStates(states, made).state(2)]).toEqual([4, 5, 6]);
    const two = new HiddenStates({ ...at, layers: [0], positions: [7, 8], tokens: [25, 26] }, data);
    await expectError(() => TaskVector.fromStates(two, made), 'VECTOR_INVALID', /2 positions were captured/);
  });
});

describe('arithmetic', () => {
  const a = vector([1, 2, 3, 4, 5, 6]);
  const b = vector([3, 2, 1, 0, -5, 2], { origin: prompts('Q:Chad\nA:') });

  test('mean, add, subtract and scale', () => {
    expect([...TaskVector.mean([a, b]).toArray()]).toEqual([2, 2, 2, 2, 0, 4]);
    expect([...a.add(b).toArray()]).toEqual([4, 4, 4, 4, 0, 8]);
    expect([...a.subtract(b).toArray()]).toEqual([-2, 0, 2, 4, 10, 4]);
    expect([...a.scale(-2).toArray()]).toEqual([-2, -4, -6, -8, -10, -12]);
    expect([...a.toArray()]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('the mean does not lose small summands', () => {
    const many = Array.from({ length: 4000 }, () => vector([0.1, 0, 0, 0, 0, 16777216]));
    const mean = TaskVector.mean(many);
    expect(mean.state(0)[0]).toBe(Math.fround(0.1));
    expect(mean.state(2)[2]).toBe(16777216);
  });

  test('says how the result was made', () => {
    const merged = TaskVector.mean([a, b]).info.origin;
    expect(merged).toMatchObject({
      op: 'prompts',
      shots: 5,
      prompts: [{ text: 'Q:Peru\nA:' }, { text: 'Q:Chad\nA:' }],
    });
    const otherSeed = vector([1, 1, 1, 1, 1, 1], { origin: prompts('Q:Mali\nA:', 2), readPosition: 'instruction' });
    const mixed = TaskVector.mean([a, otherSeed]);
    expect(mixed.info.origin).toEqual({ op: 'mean', of: [a.info.origin, otherSeed.info.origin] });
    expect(mixed.info.readPosition).toBe('last-example+instruction');
    // Two prompts and one prompt do not weigh alike, so the tree must stay.
    const uneven = TaskVector.mean([TaskVector.mean([a, b]), b]).info.origin;
    expect(uneven).toMatchObject({ op: 'mean', of: [{ op: 'prompts' }, { op: 'prompts' }] });
    expect(a.subtract(b).info.origin).toEqual({ op: 'subtract', of: [a.info.origin, b.info.origin] });
    expect(a.scale(0.5).info.origin).toEqual({ op: 'scale', factor: 0.5, of: [a.info.origin] });
  });

  test('refuses vectors that do not fit together', async () => {
    const mismatch = (z: TaskVector, message: RegExp) => expectError(() => a.add(z), 'VECTOR_MISMATCH', message);
    await mismatch(vector([1, 2, 3, 4, 5, 6], { layers: [0, 1] }), /layers 0, 2 and layers 0, 1/);
    await mismatch(vector([1, 2, 3], { layers: [0] }), /layers 0, 2 and layer 0/);
    await mismatch(vector([1, 2, 3, 4], { model: { ...model, nEmbd: 2 } }), /widths 3 and 2/);
    await mismatch(vector([1, 2, 3, 4, 5, 6], { model: other }), /models tiny and tiny-vlm/);
    await expectError(() => TaskVector.mean([]), 'INVALID_ARGUMENT', /no vectors/);
    await expectError(() => a.scale(Number.POSITIVE_INFINITY), 'VECTOR_INVALID', /Infinity/);
  });

  test('cosine by layer, across models of one width, NaN for zeros', async () => {
    const c = vector([2, 4, 6, 5, -4, 0], { model: other });
    const [same, orthogonal] = a.cosine(c);
    expect(same).toBeCloseTo(1, 12);
    expect(orthogonal).toBeCloseTo(0, 12);
    expect(a.cosine(a.scale(-3))[1]).toBeCloseTo(-1, 12);
    expect(a.cosine(a.scale(0))).toEqual([Number.NaN, Number.NaN]);
    const wide = vector([1, 2], { model: { ...model, nEmbd: 1 } });
    await expectError(() => a.cosine(wide), 'VECTOR_MISMATCH', /widths 3 and 1/);
  });

  test('random control: same norms, other directions, repeatable, independent of the other layers', () => {
    const wide = { ...model, nEmbd: 512 };
    const random = Array.from({ length: 1024 }, (_, i) => Math.sin(i * i) * (i < 512 ? 1 : 20));
    const z = vector(random, { model: wide });
    const r = z.normMatchedRandom(5);
    r.norms().forEach((norm, i) => {
      expect(norm / (z.norms()[i] as number)).toBeCloseTo(1, 6);
    });
    for (const cosine of z.cosine(r)) expect(Math.abs(cosine)).toBeLessThan(0.2);
    expect(z.normMatchedRandom(5).toArray()).toEqual(r.toArray());
    expect(z.normMatchedRandom(6).toArray()).not.toEqual(r.toArray());
    const lastOnly = vector(random.slice(512), { model: wide, layers: [2] });
    expect(lastOnly.normMatchedRandom(5).at(2)).toEqual(r.at(2));
    expect(r.info.origin).toEqual({ op: 'random', seed: 5, of: [z.info.origin] });
    expect(z.scale(0).normMatchedRandom(1).norms()).toEqual([0, 0]);
  });
});

describe('use', () => {
  const z = vector([1, 2, 3, 4, 5, 6]);

  test('as an intervention', async () => {
    expect(z.at(2)).toEqual({
      hook: 'resid_post',
      layers: 2,
      positions: 'last',
      steps: 'prompt',
      op: 'replace',
      value: new Float32Array([4, 5, 6]),
    });
    const steered = z.at(0, { op: 'add', positions: 'delimiter', strength: 0.5 });
    expect(steered).toMatchObject({ op: 'add', positions: 'delimiter', value: new Float32Array([0.5, 1, 1.5]) });
    const both = z.at([0, 2], { op: 'add', steps: 'all' });
    const value = [new Float32Array([1, 2, 3]), new Float32Array([4, 5, 6])];
    expect(both).toMatchObject({ layers: [0, 2], steps: 'all', value });
    await expectError(() => z.at(1), 'LAYER_OUT_OF_RANGE', /no layer 1.*layers 0, 2/);
  });

  test('tells its own model from a foreign one and refuses another width', async () => {
    expect(z.requireCompatible({ ...model, name: 'renamed' })).toBe('same');
    expect(z.requireCompatible(other)).toBe('foreign');
    await expectError(() => z.requireCompatible({ ...model, nEmbd: 4 }), 'VECTOR_MISMATCH', /width 3.*width 4/);
  });
});

describe('files', () => {
  test('save and load give the same vector, whole and over an old file', async () => {
    const path = join(folder, 'z.safetensors');
    const z = vector([1, 2, 3, 4, 5, 6]).subtract(vector([0.1, 0, 0, 0, 0, -1]).scale(2));
    await writeFile(path, 'old');
    await z.save(path);
    const loaded = await TaskVector.load(path);
    expect(loaded.info).toEqual(z.info);
    expect(loaded.toArray()).toEqual(z.toArray());
    await using file = await SafetensorsFile.open(path);
    expect(file.tensors.get('task_vector')).toMatchObject({ dtype: 'F32', shape: [2, 3] });
    expect(JSON.parse(file.metadata.model ?? '')).toEqual(model);
    expect(file.metadata.read_position).toBe('last-example');
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('a failed save leaves the old file', async () => {
    const missing = join(folder, 'nowhere', 'z.safetensors');
    await expectError(
      () => vector([1, 2, 3, 4, 5, 6]).save(missing),
      'FILE_WRITE',
      /nowhere does not exist: create it/,
    );
  });

  test('a position named for a single vector is refused', async () => {
    const path = join(folder, 'single.safetensors');
    await vector([1, 2, 3, 4, 5, 6]).save(path);
    await expectError(() => TaskVector.load(path, { position: 3 }), 'VECTOR_INVALID', /Leave out the position/);
  });

  const metadata = {
    format: 'xpatch.task-vector/1',
    model: JSON.stringify(model),
    hook: 'resid_post',
    layers: '[0,2]',
    read_position: 'last-example',
    origin: JSON.stringify(info.origin),
  };
  const good = { data: new Float32Array([1, 2, 3, 4, 5, 6]), shape: [2, 3] };
  let files = 0;
  async function loadWith(change: Record<string, string | undefined>, tensor = good, name = 'task_vector') {
    const path = join(folder, `changed${files++}.safetensors`);
    const pairs = Object.entries({ ...metadata, ...change }).filter(([, value]) => value !== undefined);
    await writeSafetensors(path, { [name]: tensor }, Object.fromEntries(pairs) as Record<string, string>);
    return TaskVector.load(path);
  }

  test.each<[string, Record<string, string | undefined>, RegExp]>([
    ['no format', { format: undefined }, /no key format/],
    ['a later format', { format: 'xpatch.task-vector/2' }, /this version reads xpatch.task-vector\/1/],
    ['no model', { model: undefined }, /no key model/],
    ['a model that is null', { model: 'null' }, /key model lacks/],
    ['a model without a width', { model: JSON.stringify({ ...model, nEmbd: undefined }) }, /key model lacks/],
    ['an unknown hook', { hook: 'resid_midd' }, /hook is resid_midd; known: /],
    ['layers that are not JSON', { layers: '[0,' }, /key layers is not JSON/],
    ['layers that are text', { layers: '["0","2"]' }, /key layers is not a list/],
    ['other layers than rows', { layers: '[0,1,2]' }, /\[2, 3\], but its metadata says \[3, 3\]/],
    ['layers past the model', { layers: '[0,9]' }, /must rise within 0 to 3/],
    ['another width', { model: JSON.stringify({ ...model, nEmbd: 6 }) }, /\[2, 3\], but its metadata says \[2, 6\]/],
    ['no read position', { read_position: undefined }, /no key read_position/],
    ['no origin', { origin: '{}' }, /key origin does not say/],
    ['half an origin', { origin: '{"op":"add","of":[{"op":"capture","position":1,"token":2}]}' }, /key origin/],
    [
      'an origin of wrong prompts',
      { origin: JSON.stringify({ ...info.origin, prompts: [{ text: 1 }] }) },
      /key origin/,
    ],
  ])('metadata with %s is refused', async (_, change, message) => {
    await expectError(() => loadWith(change), 'VECTOR_INVALID', message);
  });

  test('an origin nested without end is refused, not followed', async () => {
    const deep = `${'{"op":"mean","of":['.repeat(100_000)}{"op":"capture","position":0,"token":0}${']}'.repeat(100_000)}`;
    await expectError(() => loadWith({ origin: deep }), 'VECTOR_INVALID', /origin/);
  });

  test('NaN in a file is refused', async () => {
    const data = new Float32Array([1, 2, 3, 4, Number.NaN, 6]);
    await expectError(() => loadWith({}, { data, shape: [2, 3] }), 'VECTOR_INVALID', /NaN at layer 2/);
  });

  test('foreign and broken files are refused', async () => {
    await expectError(() => loadWith({}, good, 'weights'), 'VECTOR_INVALID', /neither .* \(its tensors: weights\)/);
    const noMetadata = join(folder, 'bare.safetensors');
    await writeSafetensors(noMetadata, { task_vector: good });
    await expectError(() => TaskVector.load(noMetadata), 'VECTOR_INVALID', /no key format.*xpatch extract/);
    const gguf = join(folder, 'model.gguf');
    await writeFile(gguf, `GGUF${'\0'.repeat(60)}`);
    await expectError(() => TaskVector.load(gguf), 'VECTOR_INVALID', /model\.gguf/);
    await expectError(() => TaskVector.load(join(folder, 'none')), 'FILE_NOT_FOUND', /none/);
  });

  test('every cut and every flipped byte of the header gives an error or a valid vector', async () => {
    const path = join(folder, 'fuzz.safetensors');
    await vector([1, 2, 3, 4, 5, 6]).save(path);
    const whole = await readFile(path);
    for (let i = 0; i < whole.length; i += 3) {
      const mutated = Buffer.from(whole);
      mutated[i] = (mutated[i] as number) ^ (1 << (i % 8));
      await writeFile(path, i % 2 ? mutated : whole.subarray(0, i));
      const outcome = await TaskVector.load(path).then(
        () => 'loaded',
        (error: { code?: string }) => error.code,
      );
      expect(['loaded', 'VECTOR_INVALID']).toContain(outcome);
    }
  });
});

describe('captures as vectors', () => {
  const at = { hook: 'resid_post', model, layers: [1, 3] } as const;
  const twelve = Float32Array.from({ length: 12 }, (_, i) => i);
  const states = new HiddenStates({ ...at, positions: [4, 9], tokens: [-1, 25], marks: { delimiter: 9 } }, twelve);

  test('of one position are used as they are', async () => {
    const path = join(folder, 'one.safetensors');
    const prompt = { text: 'Q:Peru\nA:', tokens: [1, 25] };
    const places = { positions: [9], tokens: [25] };
    await new HiddenStates({ ...at, ...places, prompt }, new Float32Array([1, 2, 3, 4, 5, 6])).save(path);
    const z = await TaskVector.load(path);
    expect([...z.state(3)]).toEqual([4, 5, 6]);
    expect(z.info).toEqual({
      model,
      hook: 'resid_post',
      layers: [1, 3],
      readPosition: 'position',
      origin: { op: 'capture', position: 9, token: 25 },
    });
  });

  test('of several positions need one named', async () => {
    const path = join(folder, 'two.safetensors');
    await states.save(path);
    expect(await HiddenStates.load(path)).toEqual(states);
    await expectError(() => TaskVector.load(path), 'VECTOR_INVALID', /capture of 2 positions.*Name one.*4, 9/);
    await expectError(() => TaskVector.load(path, { position: 5 }), 'VECTOR_INVALID', /without position 5.*4, 9/);
    const z = await TaskVector.load(path, { position: 4 });
    expect([...z.toArray()]).toEqual([0, 1, 2, 6, 7, 8]);
    expect(z.info.origin).toEqual({ op: 'capture', position: 4, token: -1 });
    expect([...(await TaskVector.load(path, { position: 9 })).state(1)]).toEqual([3, 4, 5]);
  });

  test('without a model are foreign everywhere', async () => {
    const path = join(folder, 'anonymous.safetensors');
    const tensor = { data: new Float32Array([1, 2, 3]), shape: [1, 1, 3] };
    await writeSafetensors(path, { resid_post: tensor }, { layers: '[2]', positions: '[0]', tokens: '[5]' });
    const z = await TaskVector.load(path);
    expect(z.requireCompatible(model)).toBe('foreign');
    expect(z.requireCompatible(z.info.model)).toBe('foreign');
    await expectError(() => z.requireCompatible({ ...model, nEmbd: 8 }), 'VECTOR_MISMATCH', /width 3.*width 8/);
  });

  test('that contradict themselves are refused', async () => {
    const path = join(folder, 'wrong.safetensors');
    const tensor = { data: new Float32Array(6), shape: [1, 2, 3] };
    const load = async (metadata: Record<string, string>, shape = tensor) => {
      await writeSafetensors(path, { resid_post: shape }, metadata);
      return TaskVector.load(path, { position: 0 });
    };
    const fields = { layers: '[2]', positions: '[0,1]', tokens: '[5,6]' };
    await expectError(() => load({ layers: '[2]' }), 'VECTOR_INVALID', /no key positions/);
    await expectError(() => load({ ...fields, tokens: '[5]' }), 'VECTOR_INVALID', /2 positions but 1 tokens/);
    await expectError(() => load({ ...fields, layers: '[1,2]' }), 'VECTOR_INVALID', /metadata says \[2, 2, 3\]/);
    const flat = { data: new Float32Array(6), shape: [6] };
    await expectError(() => load(fields, flat), 'VECTOR_INVALID', /\[6\], but its metadata says/);
    const wide = JSON.stringify({ ...model, nEmbd: 5 });
    await expectError(() => load({ ...fields, model: wide }), 'VECTOR_INVALID', /3 wide, its model is 5/);
    expect((await load(fields)).info.layers).toEqual([2]);
  });
});

describe('prompt records', () => {
  test('keep text, pictures and tokens, with picture rows counted', () => {
    const parts = ['Q:', { image: '/data/peru.png' }, '\nA:', { mark: 'delimiter' }];
    expect(recordPrompt(parts, [1, 40, -1, -1, -1, 10, 34])).toEqual({
      text: 'Q:<image>\nA:',
      images: ['/data/peru.png'],
      tokens: [1, 40, -3, 10, 34],
    });
    expect(recordPrompt(parts, [], new Map([['/data/peru.png', 'pics/peru.png']])).images).toEqual(['pics/peru.png']);
    const ids = [{ tokens: [5] }, 'hi'];
    expect(recordPrompt(ids, new Int32Array([1, 5, 6]))).toEqual({ text: '<tokens>hi', tokens: [1, 5, 6] });
    const raw = { data: new Uint8Array(3), width: 1, height: 1 };
    const inMemory = [{ image: 'data:image/png;base64,AA' }, { image: Buffer.from('x') }, { image: raw }];
    expect(recordPrompt(inMemory, [-1, -1]).images).toEqual(['data URL', 'encoded image in memory', 'raw image 1x1']);
  });
});
