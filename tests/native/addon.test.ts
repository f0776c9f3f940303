// The addon against the interface that names it, and what it does with handles of a wrong kind.
import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { TENSOR_TYPES } from '../../src/gguf/gguf.js';
import { HOOKS } from '../../src/hooks/types.js';
import type {
  Addon,
  ContextHandle,
  DecodeJob,
  ModelHandle,
  VisionHandle,
  WeightsHandle,
} from '../../src/native/addon.js';
import { listDevices, native } from '../../src/native/index.js';
import { fixture } from './helpers.js';

const { addon } = native();

test('the addon exports exactly the functions that the interface declares', () => {
  const source = readFileSync(new URL('../../src/native/addon.ts', import.meta.url), 'utf8');
  const [, body] = /export interface Addon \{\n(.*?)\n\}/s.exec(source) as unknown as [string, string];
  const declared = Array.from(body.matchAll(/^ {2}(\w+)\(/gm), ([, name]) => name);
  expect(declared.length).toBeGreaterThan(15);
  expect(Object.keys(addon).sort()).toEqual(declared.sort());
});

test('there is one CPU device, once, however often the backends are loaded', () => {
  addon.listDevices();
  expect(listDevices().filter((device) => device.type === 'cpu')).toHaveLength(1);
  const names = listDevices().map((device) => device.name);
  expect(new Set(names).size).toBe(names.length);
});

test('headers are read with the tensor types that the addon has', () => {
  const triples = addon.tensorTypes();
  const types = Array.from({ length: triples.length / 3 }, (_, i) => Array.from(triples.subarray(3 * i, 3 * i + 3)));
  expect(types.length).toBeGreaterThan(30);
  expect(types).toEqual(Object.entries(TENSOR_TYPES).map(([id, layout]) => [Number(id), ...layout]));
});

const loadOptions = { path: fixture('llama.gguf'), device: 'cpu', gpuLayers: 0 };
const load = () => addon.modelLoad(loadOptions, () => {}, new Int32Array(1));
const contextOptions = {
  nCtx: 64,
  nUbatch: 64,
  nSeq: 4,
  threads: 1,
  flashAttention: 'off',
  kvType: 'f32',
} as const;

test('a handle of another kind, a plain object or nothing throws instead of crashing', async () => {
  const model = await load();
  const context = await addon.contextCreate(model, contextOptions);
  const wrong: [string, () => unknown][] = [
    ['a context as model', () => addon.modelInfo(context as unknown as ModelHandle)],
    ['a model as context', () => addon.contextSize(model as unknown as ContextHandle)],
    ['a model as encoder', () => addon.visionEncode(model as unknown as VisionHandle, new Uint8Array(3), 1, 1)],
    [
      'a model as weights',
      () => addon.idefics2Encode(model as unknown as WeightsHandle, new Uint8Array(3), 1, 1, false),
    ],
    ['an object as model', () => addon.modelInfo({} as ModelHandle)],
    ['nothing as model', () => addon.modelInfo(undefined as unknown as ModelHandle)],
    ['a context to make a context', () => addon.contextCreate(context as unknown as ModelHandle, contextOptions)],
    ['a context to dispose a model', () => addon.modelDispose(context as unknown as ModelHandle)],
    ['a model in a decode', () => addon.contextDecode(model as unknown as ContextHandle, {} as DecodeJob)],
  ];
  for (const [what, call] of wrong) {
    expect([what, codeOf(call)]).toEqual([what, 'INVALID_ARGUMENT']);
  }
  await addon.contextDispose(context);
  await addon.modelDispose(model);
});

test('disposed handles throw DISPOSED, in every function that takes them, and may be disposed again', async () => {
  const model = await load();
  const context = await addon.contextCreate(model, contextOptions);
  await addon.modelDispose(model);
  await addon.modelDispose(model);
  const calls: ((a: Addon) => unknown)[] = [
    (a) => a.modelInfo(model),
    (a) => a.modelTokenize(model, ['x']),
    (a) => a.modelDetokenize(model, Int32Array.of(1), false),
    (a) => a.modelIsEnd(model, 1),
    (a) => a.contextCreate(model, contextOptions),
    (a) => a.visionCreate(model, { path: fixture('llava.mmproj.gguf'), device: 'cpu', threads: 1 }),
  ];
  for (const call of calls) expect(codeOf(() => call(addon))).toBe('DISPOSED');
  expect(addon.contextSize(context)).toBeGreaterThanOrEqual(64); // a context keeps its model alive
  await addon.contextDispose(context);
  await addon.contextDispose(context);
  expect(codeOf(() => addon.contextSize(context))).toBe('DISPOSED');
  expect(() => addon.contextAbort(context, true)).not.toThrow();
});

test('weights of another file, or of one that is gone, are told', async () => {
  const options = { path: fixture('llava.mmproj.gguf'), device: 'cpu', threads: 1 };
  const weights = await addon.weightsLoad(options);
  const encode = () => addon.idefics2Encode(weights, new Uint8Array(56 * 56 * 3), 56, 56, false);
  await expect(encode()).rejects.toMatchObject({ code: 'GGUF_INVALID' });
  await addon.weightsDispose(weights);
  expect(codeOf(encode)).toBe('DISPOSED');
  await addon.weightsDispose(weights);
  await expect(addon.weightsLoad({ ...options, path: '/nowhere.gguf' })).rejects.toMatchObject({
    code: 'GGUF_INVALID',
  });
  await expect(addon.weightsLoad({ ...options, device: 'none' })).rejects.toMatchObject({ code: 'DEVICE_UNKNOWN' });
});

test('a decode whose parts do not fit together is refused', async () => {
  const model = await load();
  const context = await addon.contextCreate(model, contextOptions);
  const row = {
    tokens: Int32Array.of(5),
    positions: Int32Array.of(0),
    sequences: Int32Array.of(0),
    sequenceCounts: Int32Array.of(1),
    outputs: Uint8Array.of(1),
  };
  const nEmbd = addon.modelInfo(model).nEmbd;
  const capture = {
    hook: HOOKS.indexOf('resid_post'),
    layer: 0,
    rows: Int32Array.of(0),
    spans: Int32Array.of(0, nEmbd),
    keys: 0,
    offsets: Float64Array.of(0),
    out: new Float32Array(nEmbd),
  };
  const bad: [string, DecodeJob][] = [
    ['positions of another length', { ...row, positions: Int32Array.of(0, 1) }],
    ['tokens of another type', { ...row, tokens: Float32Array.of(5) as unknown as Int32Array }],
    ['a token outside the vocabulary', { ...row, tokens: Int32Array.of(100_000) }],
    ['a negative token', { ...row, tokens: Int32Array.of(-1) }],
    ['a sequence that does not exist', { ...row, sequences: Int32Array.of(4) }],
    ['a row in no sequence', { ...row, sequenceCounts: Int32Array.of(0) }],
    ['more sequences than rows have', { ...row, sequences: Int32Array.of(0, 1) }],
    ['fewer sequences than rows have', { ...row, sequenceCounts: Int32Array.of(2) }],
    [
      'no rows',
      {
        ...row,
        tokens: new Int32Array(0),
        positions: new Int32Array(0),
        sequences: new Int32Array(0),
        sequenceCounts: new Int32Array(0),
        outputs: new Uint8Array(0),
      },
    ],
    ['an offset outside the buffer', { ...row, captures: [{ ...capture, offsets: Float64Array.of(1) }] }],
    ['a row outside the batch', { ...row, captures: [{ ...capture, rows: Int32Array.of(1) }] }],
    ['a layer that does not exist', { ...row, captures: [{ ...capture, layer: 3 }] }],
    ['a hook that does not exist', { ...row, captures: [{ ...capture, hook: HOOKS.length }] }],
    ['a part outside the row', { ...row, captures: [{ ...capture, spans: Int32Array.of(1, nEmbd) }] }],
    ['no part of the row', { ...row, captures: [{ ...capture, spans: new Int32Array(0) }] }],
    [
      'scores without places',
      { ...row, captures: [{ ...capture, hook: HOOKS.indexOf('pattern'), keys: 1, spans: Int32Array.of(0, 1) }] },
    ],
    [
      'the last layer of a row without output',
      { ...row, outputs: Uint8Array.of(0), captures: [{ ...capture, layer: 2 }] },
    ],
  ];
  for (const [what, job] of bad) {
    const code = await (async () => addon.contextDecode(context, job))().then(
      () => 'nothing',
      (error: { code?: string }) => error.code,
    );
    expect([what, code]).toEqual([
      what,
      expect.stringMatching(/^(INVALID_ARGUMENT|TOKEN_INVALID|LAYER_OUT_OF_RANGE)$/),
    ]);
  }
  await addon.contextDecode(context, { ...row, clear: true, captures: [capture] });
  expect(capture.out.some((x) => x !== 0)).toBe(true);
  await addon.contextDispose(context);
  await addon.modelDispose(model);
});

function codeOf(call: () => unknown): string | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code;
  }
}
