// Writes the reference of config fields in docs/evaluation.md from schemas/experiment.schema.json.
//
//   node scripts/config-reference.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');
const DOC = join(ROOT, 'docs', 'evaluation.md');
const SCHEMA = join(ROOT, 'schemas', 'experiment.schema.json');
const MARKS = ['<!-- fields: made by scripts/config-reference.mjs -->', '<!-- end of fields -->'];

/** The tables of a schema: fields of a config, of a template, and of conditions. */
export function configReference(schema) {
  const { properties } = schema;
  const kinds = properties.conditions.items.oneOf;
  const parts = [table(schema, properties)];
  parts.push('`template` written out:', table(schema, properties.template.then.properties));
  parts.push('Fields of a condition:', conditionTable(schema, kinds));
  return parts.join('\n\n');
}

function table(schema, fields) {
  const rows = Object.entries(fields).map(([name, field]) => {
    const whole = resolved(schema, field);
    return `| \`${name}\` | ${typeOf(schema, whole)} | ${defaultOf(whole)} | ${cell(whole.description)} |`;
  });
  return ['| Field | Values | Default | Meaning |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

/** One table for all kinds, which have most fields in common. */
function conditionTable(schema, kinds) {
  const names = [...new Set(kinds.flatMap(({ properties }) => Object.keys(properties)))];
  const rows = names
    .filter((name) => name !== 'kind')
    .map((name) => {
      const having = kinds.filter(({ properties }) => name in properties);
      const fields = having.map(({ properties }) => resolved(schema, properties[name]));
      const widest = fields.reduce((a, b) => ((b.enum?.length ?? 0) > (a.enum?.length ?? 0) ? b : a));
      const of = having.map(({ properties }) => `\`${properties.kind.const}\``);
      const which = having.length === kinds.length ? 'all' : of.join(', ');
      const required = name === 'name' || having.every(({ required: needed = [] }) => needed.includes(name));
      const meaning = [name === 'name' ? 'Row of the tables, unique.' : widest.description, required && 'Required.'];
      return `| \`${name}\` | ${which} | ${typeOf(schema, widest)} | ${cell(meaning.filter(Boolean).join(' '))} |`;
    });
  const values = kinds.map(({ properties }) => `\`${properties.kind.const}\``).join(', ');
  return [
    '| Field | Of `kind` | Values | Meaning |',
    '| --- | --- | --- | --- |',
    `| \`kind\` | all | ${values} | What the model is shown, see below. Required. |`,
    ...rows,
  ].join('\n');
}

const resolved = (schema, field) => ({ ...definition(schema, field), ...field });

function definition(schema, { $ref }) {
  return $ref === undefined ? {} : schema.$defs[$ref.split('/').at(-1)];
}

function typeOf(schema, field) {
  const own = resolved(schema, field);
  if (own.enum) return own.enum.map((value) => `\`${value}\``).join(', ');
  if (own.else?.enum) {
    const other = own.then.type === 'array' ? 'a list of numbers' : 'an object, below';
    return `${own.else.enum.map((value) => `\`${value}\``).join(', ')}, ${other}`;
  }
  if (Array.isArray(own.type)) return 'text, or a list of texts';
  if (own.items) {
    const item = resolved(schema, own.items);
    return item.type === 'object' ? 'list of conditions, below' : `list of ${typeOf(schema, item)}`;
  }
  if (own.type === 'integer') return own.minimum === undefined ? 'whole number' : `whole number from ${own.minimum}`;
  return { number: 'number', boolean: '`true`, `false`', string: 'text' }[own.type] ?? own.type;
}

function defaultOf(field) {
  if (field.default === undefined) return '';
  if (Array.isArray(field.default) && field.default.length > 3) return 'the six shipped tasks';
  return `\`${typeof field.default === 'string' ? field.default.replaceAll('\n', '\\n') : JSON.stringify(field.default)}\``;
}

const cell = (text = '') => text.replaceAll('|', '\\|');

/** A document with the reference between its marks remade. */
export function withReference(text, schema) {
  const [start, end] = MARKS.map((mark) => text.indexOf(mark));
  if (start < 0 || end < start) throw new Error(`docs/evaluation.md lacks the marks ${MARKS.join(' and ')}`);
  return `${text.slice(0, start + MARKS[0].length)}\n${configReference(schema)}\n${text.slice(end)}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = readFileSync(DOC, 'utf8');
  writeFileSync(DOC, withReference(text, JSON.parse(readFileSync(SCHEMA, 'utf8'))));
}
