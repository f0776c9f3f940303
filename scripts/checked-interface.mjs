// Writes dist/checked/, the modules behind the package's entry points: what dist/index.js and the others export, with every
// function's arguments compared with the types that its declaration gives them (src/util/arguments.ts), and those types in
// dist/checked/signatures.js.
// Part of `npm run build`.
//
// The compiler that builds xpatch has no interface for programs; the oldest one that xpatch's types must work with has.
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript-5.4';

const dist = fileURLToPath(new URL('../dist/', import.meta.url));
const ENTRIES = ['index', 'experiment', 'report', 'convert'];
const program = ts.createProgram(
  ENTRIES.map((entry) => `${dist}${entry}.d.ts`),
  {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
    strict: true,
    types: ['node'],
  },
);
const checker = program.getTypeChecker();
const exportsOf = (entry) =>
  checker
    .getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(`${dist}${entry}.d.ts`)))
    // A class that only its type is exported of is not there at run time.
    .filter(({ declarations = [] }) => !declarations.some(ts.isTypeOnlyImportOrExportDeclaration))
    .map((symbol) => ({
      name: symbol.name,
      symbol: symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol,
    }));
const exported = ENTRIES.flatMap(exportsOf);
const classes = new Map(
  exported.filter(({ symbol }) => symbol.flags & ts.SymbolFlags.Class).map(({ name, symbol }) => [symbol, name]),
);

/** Types of the platform that are told by what they are and not by their fields. */
const PLATFORM =
  /^((Big)?(Int|Uint|Float)(8|16|32|64)(Clamped)?Array|ArrayBuffer|SharedArrayBuffer|AbortSignal|Date|URL|Blob|RegExp|Map|Set|Promise|Iterable|AsyncIterable|Error)$/;
const ALIASES = { ReadonlyMap: 'Map', ReadonlySet: 'Set', Buffer: 'Uint8Array', PromiseLike: 'Promise' };
/** Fields whose unknown words the function itself refuses, with a code of their own. */
const CHECKED_LATER = new Set(['hook', 'op']);
/** Names whose fields are settings: an unknown one is a slip that would change nothing in silence. */
const SETTINGS = /(Options|Events|Row|Selection|Capture|^Intervention|^Edge)$/;

const shapes = {};
const named = new Map();

function typeShape(type) {
  const { flags } = type;
  if (flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return 'any';
  if (flags & ts.TypeFlags.StringLiteral || flags & ts.TypeFlags.NumberLiteral) return { oneOf: [type.value] };
  if (flags & ts.TypeFlags.BooleanLiteral) return { oneOf: [type.intrinsicName === 'true'] };
  if (flags & ts.TypeFlags.StringLike) return 'string';
  if (flags & ts.TypeFlags.NumberLike) return 'number';
  if (flags & ts.TypeFlags.BooleanLike) return 'boolean';
  if (flags & ts.TypeFlags.BigIntLike) return 'bigint';
  if (flags & ts.TypeFlags.Null) return 'null';
  if (flags & (ts.TypeFlags.Undefined | ts.TypeFlags.Void)) return 'undefined';
  if (flags & ts.TypeFlags.Never) return { oneOf: [] };
  if (flags & ts.TypeFlags.Union) {
    const label = type.aliasSymbol?.name;
    return label && !type.aliasTypeArguments ? shared(type, label, () => unionShape(type)) : unionShape(type);
  }
  if (flags & (ts.TypeFlags.TypeParameter | ts.TypeFlags.IndexedAccess | ts.TypeFlags.Conditional)) {
    const bound = checker.getBaseConstraintOfType(type);
    return bound && bound !== type ? typeShape(bound) : 'any';
  }
  // A text of a certain form: `string & {}`.
  const text = flags & ts.TypeFlags.Intersection && type.types.find((part) => part.flags & ts.TypeFlags.StringLike);
  return text ? typeShape(text) : objectShape(type);
}

function unionShape(type) {
  const members = type.types.map(typeShape);
  const words = members.flatMap((m) => m.oneOf ?? []);
  const others = [...new Map(members.filter((m) => !m.oneOf).map((m) => [JSON.stringify(m), m])).values()];
  if (words.includes(true) && words.includes(false)) {
    others.push('boolean');
    words.splice(0, words.length, ...words.filter((word) => typeof word !== 'boolean'));
  }
  if (words.length) others.push({ oneOf: words });
  return others.length === 1 ? others[0] : { any: others };
}

const isPlatform = (symbol) =>
  symbol?.declarations?.some((d) => /[\\/](typescript|typescript-5\.4|@types)[\\/]/.test(d.getSourceFile().fileName));

function objectShape(type) {
  const { symbol } = type;
  const name = symbol?.name;
  if (checker.isTupleType(type)) {
    const items = checker.getTypeArguments(type);
    return type.target.hasRestElement
      ? { list: items.length === 1 ? typeShape(items[0]) : 'any' }
      : { tuple: items.map(typeShape) };
  }
  if (checker.isArrayType(type)) return { list: typeShape(checker.getTypeArguments(type)[0]) };
  if (isPlatform(symbol)) {
    if (name === 'ArrayLike') return 'numbers';
    const known = ALIASES[name] ?? name;
    if (PLATFORM.test(known)) return { is: known };
  }
  if (type.getCallSignatures().length || type.getConstructSignatures().length) return 'function';
  // A class that is not exported counts as an interface: whatever has its methods will do.
  if (classes.has(symbol)) return { is: classes.get(symbol) };
  const label = type.aliasSymbol?.name ?? (name?.startsWith('__') ? undefined : name);
  return label ? shared(type, label, () => fieldsOf(type, label)) : fieldsOf(type, label);
}

/** Written once, also because a type may hold itself. */
function shared(type, label, make) {
  if (!named.has(type)) {
    const key = Object.hasOwn(shapes, label) ? `${label} ${named.size}` : label;
    named.set(type, key);
    shapes[key] = undefined;
    shapes[key] = make();
  }
  return { see: named.get(type) };
}

function fieldsOf(type, label) {
  const fields = {};
  for (const property of checker.getPropertiesOfType(type)) {
    if (isHidden(property)) continue;
    const shape = CHECKED_LATER.has(property.name) ? 'string' : typeShape(checker.getTypeOfSymbol(property));
    const optionalMark = Boolean(property.flags & ts.SymbolFlags.Optional);
    const { type: required, optional } = withoutUndefined(shape, optionalMark);
    fields[property.name] = { type: required, ...(optional && { optional }) };
  }
  const others = checker.getIndexTypeOfType(type, ts.IndexKind.String);
  const empty = !others && Object.keys(fields).length === 0;
  const closed = !others && (label === undefined || SETTINGS.test(label)) && !(type.flags & ts.TypeFlags.NonPrimitive);
  if (empty && !closed) return 'object';
  return { fields, ...(others && { others: typeShape(others) }), ...(closed && { closed }) };
}

/** A field that may be undefined may be left out. */
function withoutUndefined(type, optional) {
  if (type === 'undefined') return { type: 'undefined', optional: true };
  if (typeof type !== 'object' || !type.any?.includes('undefined')) return { type, optional };
  const rest = type.any.filter((member) => member !== 'undefined');
  return { type: rest.length === 1 ? rest[0] : { any: rest }, optional: true };
}

function signatureOf(signatures) {
  // No public function has overloads whose parameters differ in kind.
  if (signatures.length !== 1) throw new Error(`an exported function has ${signatures.length} signatures`);
  const [signature] = signatures;
  const parameters = signature.parameters.map((parameter, i) => {
    const { valueDeclaration: declaration } = parameter;
    let type = checker.getTypeOfSymbolAtLocation(parameter, declaration);
    const rest = declaration.dotDotDotToken !== undefined;
    if (rest) type = checker.getTypeArguments(type)[0];
    const known = CHECKED_LATER.has(parameter.name) ? 'string' : typeShape(type);
    const shape = withoutUndefined(known, checker.isOptionalParameter(declaration));
    const name = /^[{[_]/.test(parameter.name) ? (i ? 'options' : 'the argument') : parameter.name;
    return { name, type: shape.type, ...(shape.optional && { optional: true }), ...(rest && { rest }) };
  });
  const result = signature.getReturnType();
  const promises = result.symbol?.name === 'Promise';
  return { parameters, ...(promises && { promises }) };
}

const isHidden = (symbol) =>
  symbol.getJsDocTags().some((tag) => tag.name === 'internal') ||
  symbol.declarations?.some(
    (d) => ts.getCombinedModifierFlags(d) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected),
  ) ||
  /^(__@|__#|#)/.test(symbol.name);

function methodsOf(symbol) {
  const methods = {};
  const type = checker.getTypeOfSymbol(symbol);
  const add = (name, of) => {
    const signatures = of.getCallSignatures();
    if (signatures.length && signatures[0].parameters.length) methods[name] = signatureOf(signatures);
  };
  for (const member of checker.getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))) {
    if (member.flags & ts.SymbolFlags.Method && !isHidden(member)) add(member.name, checker.getTypeOfSymbol(member));
  }
  for (const member of checker.getPropertiesOfType(type)) {
    if (member.flags & ts.SymbolFlags.Method && !isHidden(member))
      add(`static ${member.name}`, checker.getTypeOfSymbol(member));
  }
  const maker = symbol.members?.get('__constructor');
  const signatures = type.getConstructSignatures();
  if (maker && !isHidden(maker) && signatures[0]?.parameters.length) methods.new = signatureOf(signatures);
  return methods;
}

const functions = {};
const methods = {};
const plain = new Set();
for (const { name, symbol } of exported) {
  if (!(symbol.flags & ts.SymbolFlags.Value)) continue;
  if (symbol.flags & ts.SymbolFlags.Function) {
    functions[name] = signatureOf(checker.getTypeOfSymbol(symbol).getCallSignatures());
  } else if (symbol.flags & ts.SymbolFlags.Class && name !== 'XpatchError') {
    methods[name] = methodsOf(symbol);
  } else {
    plain.add(name);
  }
}
const made = '// Made by scripts/checked-interface.mjs out of the types of the entry points.';
mkdirSync(`${dist}checked`, { recursive: true });
const tables = Object.entries({ shapes, functions, methods })
  .map(([name, table]) => `export const ${name} = ${JSON.stringify(table)};`)
  .join('\n');
const libraries = ENTRIES.map((entry) => `...${entry}`).join(', ');
writeFileSync(
  `${dist}checked/signatures.js`,
  `${made}
${ENTRIES.map((entry) => `import * as ${entry} from '../${entry}.js';`).join('\n')}
${tables}
export const all = { shapes, classes: { ${libraries} } };
`,
);
for (const entry of ENTRIES) {
  const names = exportsOf(entry).map(({ name }) => name);
  const of = (table) => names.filter((name) => Object.hasOwn(table, name));
  writeFileSync(
    `${dist}checked/${entry}.js`,
    `${made}
import { checked, checkedClass } from '../util/arguments.js';
import * as library from '../${entry}.js';
import { all, functions, methods } from './signatures.js';

export { ${names.filter((name) => plain.has(name)).join(', ')} } from '../${entry}.js';
${of(functions)
  .map((name) => `export const ${name} = checked(all, '${name}', functions.${name}, library.${name});`)
  .join('\n')}
${of(methods)
  .map((name) => `export const ${name} = checkedClass(all, '${name}', methods.${name}, library.${name});`)
  .join('\n')}
`,
  );
}
