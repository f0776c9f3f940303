import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { ErrorObject, ValidateFunction } from 'ajv/dist/2020.js';
import { closestTo } from '../util/nearest.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { printable } from '../util/printable.js';

/** JSON Schema of a config file, shipped with the package. */
export const SCHEMA_FILE = join(PACKAGE_ROOT, 'schemas', 'experiment.schema.json');

/** What is wrong with the types of an experiment, whose defaults are filled in. */
export function schemaProblems(experiment: object): string[] {
  const validate = validator();
  return validate(experiment) ? [] : describeErrors(validate.errors ?? []);
}

let compiled: ValidateFunction | undefined;

function validator(): ValidateFunction {
  if (!compiled) {
    // only here: few commands need it
    const { Ajv2020 } = createRequire(import.meta.url)('ajv/dist/2020.js') as typeof import('ajv/dist/2020.js');
    const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8')) as object;
    // `template` and `layers` need union types and the like; the rest of ajv's strict mode stays on.
    const ajv = new Ajv2020({
      allErrors: true,
      verbose: true,
      useDefaults: true,
      discriminator: true,
      strictTypes: false,
      strictRequired: false,
      validateSchema: false, // tests/unit/experiment-config.test.ts does, which takes longer than all the rest here
    });
    compiled = ajv.compile(schema);
  }
  return compiled;
}

interface Schema {
  readonly $comment?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly oneOf?: readonly Schema[];
}

function describeErrors(errors: readonly ErrorObject[]): string[] {
  // `if` only says which branch the other errors come from.
  return errors.filter(({ keyword }) => keyword !== 'if').map(describeError);
}

/** One problem on one line: the path, what is allowed there, and what is there. */
function describeError({ instancePath, keyword, params, data, parentSchema, message }: ErrorObject): string {
  const schema = (parentSchema ?? {}) as Schema;
  const path = (extra?: string) => pathOf(extra === undefined ? instancePath : `${instancePath}/${extra}`);
  const not = `, not ${quote(data)}`;
  switch (keyword) {
    case 'enum': {
      const more = schema.$comment === undefined ? '' : ` ${schema.$comment}`;
      return `${path()}: must be one of ${(schema.enum ?? []).join(', ')}${more && `,${more}`}${not}`;
    }
    case 'discriminator': {
      const kinds = (schema.oneOf ?? []).map(({ properties }) => properties?.[params.tag as string]?.const);
      return `${path(params.tag as string)}: must be one of ${kinds.join(', ')}, not ${quote(params.tagValue)}`;
    }
    case 'additionalProperties': {
      const names = Object.keys(schema.properties ?? {});
      const near = closestTo(params.additionalProperty as string, names);
      const hint = near === undefined ? `; allowed are ${names.join(', ')}` : ` (did you mean ${near}?)`;
      return `${path(params.additionalProperty as string)}: is not a setting here${hint}`;
    }
    case 'required': {
      const missing = params.missingProperty as string;
      const values = schema.properties?.[missing]?.enum;
      return `${path(missing)}: is missing${values ? `; it must be one of ${values.join(', ')}` : ''}`;
    }
    case 'type':
      return `${path()}: must be ${[params.type]
        .flat()
        .map((type) => TYPES[type] ?? type)
        .join(' or ')}${not}`;
    case 'minimum':
    case 'maximum':
      return `${path()}: must be ${keyword === 'minimum' ? 'at least' : 'at most'} ${params.limit}${not}`;
    case 'minItems':
    case 'minLength':
      return `${path()}: must not be empty${schema.$comment === undefined ? '' : `: ${schema.$comment}`}`;
    case 'maxItems':
      return `${path()}: has ${(data as unknown[]).length} entries, but may have ${params.limit}`;
    case 'uniqueItems':
      return `${path()}: entries ${params.i} and ${params.j} are the same; name each one once`;
    case 'pattern':
    case 'maxLength':
      return `${path()}: must be ${schema.$comment}${not}`;
    default:
      return `${path()}: ${message}${not}`;
  }
}

const TYPES: Record<string, string> = {
  array: 'a list, such as [a, b]',
  boolean: 'true or false',
  integer: 'a whole number',
  number: 'a number',
  object: 'an object of settings',
  string: 'text',
};

/** `/conditions/2/spec` as `conditions[2].spec`. */
function pathOf(pointer: string): string {
  const parts = pointer
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const text = parts.map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${printable(part)}`)).join('');
  return text.replace(/^\./, '') || 'the config';
}

/** A value in a message. */
export function quote(value: unknown): string {
  // JSON has no word for .nan and .inf.
  const text = typeof value === 'number' ? String(value) : printable(JSON.stringify(value) ?? 'nothing');
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
