// Calls of the public interface with arguments of wrong types and senseless values:
// `node wrong-calls.mjs COUNT SEED FILE` makes COUNT of all that there are and prints, as JSON, how many there are, how each
// ended, and every error that is no XpatchError. FILE always holds the call under way: what it holds when the process dies or
// hangs is the culprit. Runs in a folder that it may fill.

import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import * as convert from '../../dist/checked/convert.js';
import * as experiment from '../../dist/checked/experiment.js';
import * as core from '../../dist/checked/index.js';
import * as report from '../../dist/checked/report.js';
import { functions, methods, shapes } from '../../dist/checked/signatures.js';
import { ERROR_CODES } from '../../dist/util/errors.js';
import { Pace } from '../../dist/util/pace.js';

/** By name: which are there is what this is about. */
const xpatch = { ...core, ...experiment, ...report, ...convert };
const [count, seed, file] = process.argv.slice(2);
const fixture = (name) => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));
const path = fixture('llava.gguf');
const model = await xpatch.loadModel(path, { mmproj: fixture('llava.mmproj.gguf'), device: 'cpu', threads: 1 });
const context = await model.createContext({ nCtx: 256 });
const prompt = await model.prompt({ tokens: [5, 6, 7] });
const capture = { layers: 'all', positions: 'last' };
const [{ states }] = await context.pass([{ prompt, capture }]);
const info = { model: model.identity, modality: 'text', template: 'Q: {input}\nA: {output}', readPosition: 'last' };
const origin = { op: 'capture', position: 2, token: 7 };
const vector = xpatch.TaskVector.fromStates(states, { ...info, origin });
const lens = await xpatch.fitTunedLens(context, [prompt, prompt], { positions: 3, memory: 1e6 }).catch(() => undefined);
const chat = () => new xpatch.ChatSession(context, { template: '{{ messages[0].content }}' });
const signal = AbortSignal.timeout(3_000_000);

/** One instance of each class; those of the library that a test of arguments does not need a real one of are undefined. */
const INSTANCES = {
  Model: () => model,
  Context: () => context,
  Prompt: () => prompt,
  HiddenStates: () => states,
  TaskVector: () => vector,
  TunedLens: () => lens,
  ChatSession: chat,
  ChatTemplate: () => new xpatch.ChatTemplate('{{ messages[0].content }}', { names: {}, control: [] }),
  AbortSignal: () => signal,
  Date: () => new Date(0),
  Map: () => new Map(),
  Set: () => new Set(),
  Uint8Array: () => new Uint8Array(3),
  Float32Array: () => new Float32Array(model.info.nEmbd),
  URL: () => new URL('file:///nowhere.png'),
  Blob: () => new Blob([]),
  ArrayBuffer: () => new ArrayBuffer(8),
};
const NAMED = {
  Tokenizer: () => model,
  Pace: () => new Pace(),
  ModelIdentity: () => model.identity,
  HiddenStates: () => states,
  LayerSelection: () => 'all',
  PositionSelection: () => 'last',
  ImageSource: () => ({ data: new Uint8Array(12), width: 2, height: 2 }),
};

/** A value of a type, with nothing that may be left out. */
function sample(shape, depth = 0) {
  if (shape === 'string') return 'x';
  if (shape === 'number') return 1;
  if (shape === 'boolean') return true;
  if (shape === 'bigint') return 1n;
  if (shape === 'function') return () => {};
  if (shape === 'numbers') return [5, 6];
  if (shape === 'object') return {};
  if (typeof shape === 'string') return undefined;
  if (shape.see) return NAMED[shape.see]?.() ?? (depth > 8 ? undefined : sample(shapes[shape.see], depth + 1));
  if (shape.oneOf) return shape.oneOf[0];
  if (shape.any) return sample(shape.any[0], depth + 1);
  if (shape.is) return INSTANCES[shape.is]?.();
  if (shape.list) return [sample(shape.list, depth + 1)];
  if (shape.tuple) return shape.tuple.map((item) => sample(item, depth + 1));
  const required = Object.entries(shape.fields).filter(([, field]) => !field.optional);
  return Object.fromEntries(required.map(([name, field]) => [name, sample(field.type, depth + 1)]));
}

const detached = new Float32Array(4);
structuredClone(detached, { transfer: [detached.buffer] });
const throwing = () => {
  throw new RangeError('from a trap');
};
const loop = [];
loop.push(loop);
const revoked = Proxy.revocable({}, {});
revoked.revoke();
/** Senseless values; functions, so that none is changed by an earlier call. */
const WRONG = {
  undefined: () => undefined,
  null: () => null,
  NaN: () => Number.NaN,
  'minus one': () => -1,
  'a fraction': () => 0.5,
  '2 ** 53': () => 2 ** 53,
  infinity: () => Number.POSITIVE_INFINITY,
  'an empty text': () => '',
  'a huge text': () => 'ab '.repeat(1_000_000),
  'a lone surrogate': () => '\ud800',
  'a NUL': () => 'a\0b',
  'an inherited name': () => 'constructor',
  true: () => true,
  'a symbol': () => Symbol('s'),
  'a bigint': () => 10n,
  'a function': () => () => {},
  'a class': () => class {},
  'an empty object': () => ({}),
  'an object without a prototype': () => Object.create(null),
  'a proxy that throws': () =>
    new Proxy({}, { get: throwing, has: throwing, ownKeys: throwing, getPrototypeOf: throwing }),
  'a revoked proxy': () => revoked.proxy,
  'a getter that throws': () => Object.defineProperty({}, 'length', { enumerable: true, get: throwing }),
  'an empty list': () => [],
  'a list with holes': () => Array(3),
  'a list that holds itself': () => loop,
  'a list of lists': () => [[], [undefined], [null]],
  'a detached array': () => detached,
  'a shared array': () => new Uint8Array(new SharedArrayBuffer(12)),
  'shared floats': () => new Float32Array(new SharedArrayBuffer(4 * model.info.nEmbd)),
  'an array buffer': () => new ArrayBuffer(8),
  'a data view': () => new DataView(new ArrayBuffer(8)),
  'big integers': () => new BigInt64Array(3),
  "another realm's list": () => vm.runInNewContext('[1, "a", null]'),
  "another realm's object": () => vm.runInNewContext('({ a: 1 })'),
  "another realm's floats": () => vm.runInNewContext('new Float32Array(4)'),
  'a promise': () => Promise.resolve(1),
  'an invalid date': () => new Date(Number.NaN),
  'a map': () => new Map([[1, 2]]),
  'a boxed number': () => Object(1),
  'an unknown name': () => ({ nonesuch: 1 }),
};

/** Places of a type where a wrong value can stand: itself, fields of objects, items of lists; two levels down. */
function places(shape, depth = 0) {
  const here = [[]];
  if (depth > 2 || typeof shape === 'string') return here;
  if (shape.see) return places(shapes[shape.see], depth);
  const below = (key, type) => places(type, depth + 1).map((rest) => [key, ...rest]);
  if (shape.fields) return [...here, ...Object.entries(shape.fields).flatMap(([name, { type }]) => below(name, type))];
  if (shape.list) return [...here, ...below(0, shape.list)];
  if (shape.any) return [...new Map(shape.any.flatMap((s) => places(s, depth)).map((p) => [p.join('.'), p])).values()];
  return here;
}

function put(value, [key, ...rest], wrong) {
  if (key === undefined) return wrong;
  const holder = Array.isArray(value)
    ? [...value]
    : typeof value === 'object' && value !== null
      ? { ...value }
      : key === 0
        ? []
        : {};
  holder[key] = put(holder[key], rest, wrong);
  return holder;
}

const targets = [];
for (const [name, signature] of Object.entries(functions)) {
  targets.push({ name, signature, call: (args) => xpatch[name](...args) });
}
for (const [name, members] of Object.entries(methods)) {
  for (const [method, signature] of Object.entries(members)) {
    const [, isStatic, key] = /^(static )?(.*)$/.exec(method);
    const holder = () => (isStatic ? xpatch[name] : INSTANCES[name]?.());
    if (key !== 'new' && holder() === undefined) continue;
    const call = (args) => (key === 'new' ? new xpatch[name](...args) : holder()[key](...args));
    targets.push({ name: `${name}.${method}`, signature, call });
  }
}
const cases = targets.flatMap(({ name, signature, call }) =>
  signature.parameters.flatMap(({ type }, index) =>
    places(type).flatMap((place) =>
      Object.keys(WRONG).map((wrong) => ({ name, signature, call, index, place, wrong })),
    ),
  ),
);

let state = Number(seed) >>> 0;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
for (let i = cases.length - 1; i > 0; i--) {
  const j = Math.floor(random() * (i + 1));
  [cases[i], cases[j]] = [cases[j], cases[i]];
}

const outcome = { of: cases.length, tried: 0, worked: 0, refused: {}, uncoded: [] };
let label = '';
const note = (error, how = '') => {
  const coded = error instanceof xpatch.XpatchError && ERROR_CODES.includes(error.code);
  if (coded) outcome.refused[error.code] = (outcome.refused[error.code] ?? 0) + 1;
  // A trap's own error is the caller's.
  else if (error?.message === 'from a trap') outcome.refused.own = (outcome.refused.own ?? 0) + 1;
  else
    outcome.uncoded.push({
      label: label + how,
      error: String(error?.stack ?? error)
        .split('\n')
        .slice(0, 3)
        .join(' | '),
    });
};
process.on('unhandledRejection', (error) => note(error, ' (afterwards)'));

const works = () => context.pass([{ prompt, topK: 1 }]);
for (const { name, signature, call, index, place, wrong } of cases.slice(0, Number(count))) {
  label = `${name}(${signature.parameters[index].name}${place.map((key) => `.${key}`).join('')} = ${wrong})`;
  writeFileSync(file, label);
  outcome.tried++;
  const args = signature.parameters.map(({ type, optional }, i) => {
    if (i === index) return put(place.length ? sample(type) : undefined, place, WRONG[wrong]());
    return optional ? undefined : sample(type);
  });
  try {
    let result = call(args);
    const started = Date.now();
    if (typeof result?.then === 'function') {
      result = await Promise.race([
        result,
        new Promise((_, reject) => setTimeout(reject, 60_000, new Error('hangs')).unref()),
      ]);
    }
    if (Date.now() - started > 20_000) throw new Error('takes too long');
    outcome.worked++;
    await result?.close?.();
    if (result instanceof xpatch.Context || result instanceof xpatch.Model) await result.dispose();
  } catch (error) {
    note(error);
  }
  if (outcome.tried % 50 === 0) await works();
}
label = 'the end';
await works();
writeFileSync(file, label);
console.log(JSON.stringify(outcome));
process.exit(0);
