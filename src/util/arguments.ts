// The layer between callers in plain JavaScript and the functions of the public interface: arguments are compared with
// the declared types. The descriptions are made from the declarations by scripts/checked-interface.mjs, at build time.
import { types } from 'node:util';
import { XpatchError } from './errors.js';
import { closestTo } from './nearest.js';

/**
 * A type. Text stands for itself: `string`, `number`, `boolean`, `bigint`, `function`, `object`, `any`, `null`, `undefined`;
 * `numbers` is ArrayLike<number>.
 */
export type Shape =
  | string
  | { oneOf: (string | number | boolean)[] }
  | { any: Shape[] }
  | { list: Shape }
  | { tuple: Shape[] }
  /** An instance of a class of the library, or of the platform. */
  | { is: string }
  | { see: string }
  | Fields;

interface Fields {
  fields: Record<string, { type: Shape; optional?: true }>;
  /** Of all names that `fields` lacks. */
  others?: Shape;
  /** Whether unknown names are errors: in options they are, in data they are not. */
  closed?: true;
}

interface Parameter {
  name: string;
  type: Shape;
  optional?: true;
  rest?: true;
}

export interface Signature {
  parameters: Parameter[];
  /** Whether the function returns a promise, which then carries the error. */
  promises?: true;
}

export interface Interface {
  shapes: Record<string, Shape>;
  /** What the library exports: its classes are found here by name. */
  classes: Record<string, unknown>;
}

interface Problem {
  at: string;
  wanted: string;
  got: unknown;
  /** Instead of "must be". */
  text?: string;
  /** The name that there is not, of those in `known`. */
  unknown?: { name: string; known: string[] };
}

/** Data of a run is a few levels deep; anything deeper is a cycle. */
const MAX_DEPTH = 40;

/** Throws INVALID_ARGUMENT for the first argument that does not have its declared type. */
function checkArguments(of: Interface, what: string, parameters: Parameter[], given: unknown[]): void {
  for (const [i, { name, type, optional, rest }] of parameters.entries()) {
    const values = rest ? given.slice(i) : [given[i]];
    for (const value of values) {
      if (optional && value === undefined) continue;
      let problem: Problem | undefined;
      try {
        problem = problemWith(of, type, value, name, true, 0);
      } catch (cause) {
        const text = `${what}: ${name} cannot be read: ${messageOf(cause)}.`;
        throw new XpatchError('INVALID_ARGUMENT', text, { cause });
      }
      if (!problem) continue;
      const others = parameters.filter((other) => other.name !== name);
      const elsewhere = others.map((other) => ({ name: other.name, fields: settingsOf(of, other.type) }));
      const text = `${what}: ${problem.at} ${wordsOf(problem, elsewhere)}`;
      throw new XpatchError('INVALID_ARGUMENT', text.endsWith('?') ? text : `${text}.`);
    }
  }
}

/** @param elsewhere the settings that other arguments take */
function wordsOf({ text, unknown, wanted, got }: Problem, elsewhere: { name: string; fields: string[] }[]): string {
  if (!unknown) return text ?? `must be ${wanted}, not ${named(got)}`;
  const { name, known } = unknown;
  const lacks = `has no ${JSON.stringify(name)}`;
  const home = elsewhere.find(({ fields }) => fields.includes(name));
  if (home) return `${lacks}; it belongs in ${home.name}`;
  const near = closestTo(name, known);
  if (near !== undefined) return `${lacks}; did you mean "${near}"?`;
  for (const { name: place, fields } of elsewhere) {
    const meant = closestTo(name, fields);
    if (meant !== undefined) return `${lacks}; did you mean ${JSON.stringify(meant)} of ${place}?`;
  }
  return `${lacks}; it may have ${known.join(', ') || 'nothing'}`;
}

/** The names that settings of a type may have. */
const settingsOf = (of: Interface, type: Shape): string[] =>
  formsOf(of, type).flatMap((form) => (typeof form === 'object' && 'fields' in form ? Object.keys(form.fields) : []));

/** `own`: whether it is a parameter or a field of options, where NaN says nothing; in data it may be a missing value. */
function problemWith(
  of: Interface,
  type: Shape,
  value: unknown,
  at: string,
  own: boolean,
  depth: number,
): Problem | undefined {
  if (depth > MAX_DEPTH) return { at, wanted: '', got: value, text: 'is nested too deeply' };
  const wrong = (text?: string): Problem => ({ at, wanted: wordsFor(of, type), got: value, ...(text && { text }) });
  if (typeof type === 'string') return isPrimitive(type, value, own) ? undefined : wrong();
  if ('see' in type) return problemWith(of, of.shapes[type.see] as Shape, value, at, own, depth);
  if ('oneOf' in type) return type.oneOf.includes(value as string) ? undefined : wrong();
  if ('is' in type) return isInstance(of, type.is, value) ? undefined : wrong();
  if ('any' in type) {
    const found: { form: Shape; problem: Problem }[] = [];
    for (const form of formsOf(of, type)) {
      const problem = problemWith(of, form, value, at, own, depth + 1);
      if (!problem) return undefined;
      found.push({ form, problem });
    }
    // The form that was meant is the one that it resembles most; if it resembles none, all of them are named.
    const [best] = found
      .map(({ form, problem }) => ({ problem, likeness: likeness(of, form, value) }))
      .filter(({ likeness }) => likeness > 0)
      .sort((a, b) => b.likeness - a.likeness);
    const isVector = isList(value) && typeof ownItem(value) === 'number' && found.some(({ form }) => isTyped(form));
    return best && !isVector ? best.problem : wrong();
  }
  if ('list' in type || 'tuple' in type) {
    if (!Array.isArray(value)) return wrong();
    if ('tuple' in type && value.length !== type.tuple.length) return wrong();
    for (let i = 0; i < value.length; i++) {
      const item = 'list' in type ? type.list : (type.tuple[i] as Shape);
      const problem = problemWith(of, item, value[i], `${at}[${i}]`, false, depth + 1);
      if (problem) return problem;
    }
    return undefined;
  }
  return problemWithFields(of, type, value, at, depth) ?? undefined;
}

function problemWithFields(
  of: Interface,
  type: Fields,
  value: unknown,
  at: string,
  depth: number,
): Problem | undefined {
  const wrong = { at, wanted: wordsFor(of, type), got: value };
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) return wrong;
  const given = value as Record<string, unknown>;
  const known = Object.keys(type.fields);
  const foreign = Object.keys(given).filter((name) => !known.includes(name));
  // First: what is missing may be there under a wrong name.
  const missing = requiredOf(type).filter((name) => given[name] === undefined);
  const slip = foreign.find((name) => type.closed || closestTo(name, missing) !== undefined);
  if (slip !== undefined && !type.others) return { ...wrong, unknown: { name: slip, known } };
  for (const [name, { type: field, optional }] of Object.entries(type.fields)) {
    const item = given[name];
    if (optional && item === undefined) continue;
    const problem = problemWith(of, field, item, `${at}.${name}`, type.closed === true, depth + 1);
    if (problem) return problem;
  }
  for (const name of type.others ? foreign : []) {
    const problem = problemWith(of, type.others as Shape, given[name], `${at}.${name}`, false, depth + 1);
    if (problem) return problem;
  }
  return undefined;
}

/** The forms of a union, also those of unions in it; of another type itself. */
function formsOf(of: Interface, type: Shape): Shape[] {
  if (typeof type === 'string') return [type];
  if ('see' in type) return formsOf(of, of.shapes[type.see] as Shape);
  return 'any' in type ? type.any.flatMap((form) => formsOf(of, form)) : [type];
}

/** How much a value that does not fit a form of a union resembles it; 0 if there is nothing in common. */
function likeness(of: Interface, form: Shape, value: unknown): number {
  if (typeof form === 'string') return 0;
  if ('list' in form) return isList(value) ? 1 : 0;
  if ('tuple' in form) return isList(value) && value.length === form.tuple.length ? 2 : 0;
  if (!('fields' in form) || typeof value !== 'object' || value === null || isList(value)) return 0;
  const given = value as Record<string, unknown>;
  const known = Object.keys(form.fields);
  let score = 0;
  for (const name of Object.keys(given)) {
    const field = Object.hasOwn(form.fields, name) ? form.fields[name] : undefined;
    if (field) score += formsOf(of, field.type).some((type) => isOfKind(of, type, given[name])) ? 3 : 2;
    else if (closestTo(name, known) !== undefined) score += 1;
  }
  return score;
}

/** Whether a value is of a type, whatever is inside it. */
function isOfKind(of: Interface, type: Shape, value: unknown): boolean {
  if (typeof type === 'string') return isPrimitive(type, value, false);
  if ('oneOf' in type) return type.oneOf.includes(value as string);
  if ('is' in type) return isInstance(of, type.is, value);
  if ('fields' in type) return typeof value === 'object' && value !== null && !isList(value);
  return isList(value);
}

const isList = (value: unknown): value is unknown[] => Array.isArray(value);
const isTyped = (form: Shape) => typeof form === 'object' && 'is' in form && /\dArray$|ClampedArray$/.test(form.is);
/** The first item, unless reading it runs a function. */
const ownItem = (list: unknown[]): unknown => Object.getOwnPropertyDescriptor(list, 0)?.value;

function isPrimitive(type: string, value: unknown, own: boolean): boolean {
  switch (type) {
    case 'any':
      return true;
    case 'null':
      return value === null;
    case 'object':
      return typeof value === 'object' && value !== null;
    case 'number':
      return typeof value === 'number' && !(own && Number.isNaN(value));
    case 'function':
      return typeof value === 'function' && !/^class\b/.test(Function.prototype.toString.call(value)); // needs `new`
    case 'numbers':
      requireMemory(value);
      if (ArrayBuffer.isView(value))
        return !types.isDataView(value) && !types.isBigInt64Array(value) && !types.isBigUint64Array(value);
      // By index: a list with holes has undefined where it has none.
      return (
        Array.isArray(value) &&
        Array.from({ length: value.length }, (_, i) => value[i]).every((x) => typeof x === 'number')
      );
    default:
      return typeof value === type;
  }
}

/** Throws where an array's memory was transferred to another thread: it looks empty, and fails where it is used. */
function requireMemory(value: unknown): void {
  if (ArrayBuffer.isView(value)) new Uint8Array(value.buffer, 0, 0);
}

/** Also those of another realm, such as a `vm` context, for the platform's own. */
function isInstance(of: Interface, name: string, value: unknown): boolean {
  if (Object.hasOwn(of.classes, name)) return value instanceof (of.classes[name] as abstract new () => unknown);
  const duck = value as { aborted?: unknown; addEventListener?: unknown; next?: unknown };
  switch (name) {
    case 'AbortSignal':
      return (
        typeof value === 'object' &&
        value !== null &&
        typeof duck.aborted === 'boolean' &&
        typeof duck.addEventListener === 'function'
      );
    case 'Iterable':
      return (
        value !== null && value !== undefined && typeof (value as Iterable<unknown>)[Symbol.iterator] === 'function'
      );
    case 'AsyncIterable':
      return (
        value !== null &&
        value !== undefined &&
        typeof (value as AsyncIterable<unknown>)[Symbol.asyncIterator] === 'function'
      );
    default:
      requireMemory(value);
      return (
        Object.prototype.toString.call(value) === `[object ${name}]` ||
        (name === 'Uint8Array' && types.isUint8Array(value))
      );
  }
}

function wordsFor(of: Interface, type: Shape): string {
  const article = (noun: string) => `${/^[aeio]/i.test(noun) ? 'an' : 'a'} ${noun}`;
  if (typeof type === 'string') {
    if (type === 'numbers') return 'a list of numbers';
    return ['null', 'undefined', 'any'].includes(type) ? type : article(type);
  }
  if ('see' in type) return wordsFor(of, of.shapes[type.see] as Shape);
  if ('oneOf' in type) return type.oneOf.map((x) => JSON.stringify(x)).join(' or ');
  if ('is' in type) return article(type.is);
  if ('any' in type) {
    const forms = formsOf(of, type);
    // Objects that are told by one field: "an object with text, tokens or image".
    const told = forms.flatMap((form) => (requiredOf(form).length === 1 ? requiredOf(form) : []));
    const objects = `an object with ${either(told)}`;
    const words = forms.map((form) => (requiredOf(form).length === 1 ? objects : wordsFor(of, form)));
    return either([...new Set(words)]);
  }
  if ('list' in type) {
    const [item, ...more] = formsOf(of, type.list);
    const plain = more.length === 0 && typeof item === 'object' && 'is' in item;
    return plain ? `a list of ${item.is}s` : 'a list';
  }
  if ('tuple' in type) return `a list of ${type.tuple.length}`;
  const names = requiredOf(type);
  return names.length ? `an object with ${names.join(', ')}` : 'an object';
}

/** The fields that an object of a type must have. */
function requiredOf(type: Shape): string[] {
  if (typeof type === 'string' || !('fields' in type)) return [];
  return Object.keys(type.fields).filter((name) => !type.fields[name]?.optional);
}

/** "a, b or c". */
const either = (words: string[]): string =>
  words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;

/** A value in a message: never the value of an object, whose own functions could do anything. */
function named(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value.length > 40 ? `a text of ${value.length} characters` : JSON.stringify(value);
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value);
    case 'object':
      if (value === null) return 'null';
      if (types.isProxy(value) || !isList(value)) return 'an object';
      return typeof ownItem(value) === 'number' ? 'a list of numbers' : 'a list';
    default:
      return `a ${typeof value}`;
  }
}

function messageOf(error: unknown): string {
  return types.isNativeError(error) ? error.message : 'reading it threw';
}

// biome-ignore lint/suspicious/noExplicitAny: any function at all
type AnyFunction = (...args: any[]) => any;

/** The function with a check of its arguments; an error is raised the way its own errors are. */
export function checked<F extends AnyFunction>(of: Interface, what: string, signature: Signature, inner: F): F {
  const outer = function (this: unknown, ...args: unknown[]) {
    try {
      checkArguments(of, what, signature.parameters, args);
    } catch (error) {
      if (signature.promises) return Promise.reject(error);
      throw error;
    }
    return inner.apply(this, args);
  };
  Object.defineProperty(outer, 'name', { value: inner.name });
  Object.defineProperty(outer, 'length', { value: inner.length });
  return outer as F;
}

// biome-ignore lint/suspicious/noExplicitAny: any class at all
type AnyClass = { prototype: any } & Record<string, any>;

/** Puts the check before methods of a class, static ones by the name `static f`, and its constructor, `new`. */
export function checkedClass<C extends AnyClass>(
  of: Interface,
  name: string,
  methods: Record<string, Signature>,
  inner: C,
): C {
  for (const [method, signature] of Object.entries(methods)) {
    if (method === 'new') continue;
    const isStatic = method.startsWith('static ');
    const key = method.replace('static ', '');
    const holder = isStatic ? inner : inner.prototype;
    if (!Object.hasOwn(holder, key)) continue; // inherited: its class has the check
    const what = isStatic ? `${name}.${key}` : `${name[0]?.toLowerCase()}${name.slice(1)}.${key}`;
    const descriptor = Object.getOwnPropertyDescriptor(holder, key) as PropertyDescriptor;
    Object.defineProperty(holder, key, { ...descriptor, value: checked(of, what, signature, descriptor.value) });
  }
  const construct = methods.new;
  if (!construct) return inner;
  return new Proxy(inner, {
    construct(target, args, newTarget) {
      checkArguments(of, `new ${name}`, construct.parameters, args);
      return Reflect.construct(target as unknown as new () => object, args, newTarget);
    },
  });
}
