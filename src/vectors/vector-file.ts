import { HOOKS, type HookName, STREAM_HOOKS } from '../hooks/types.js';
import { Fields, isCount, isPromptRecord, isText, readStates } from '../model/capture-file.js';
import { HiddenStates } from '../model/hidden-states.js';
import type { HiddenStatesInfo } from '../model/types.js';
import type { Template } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import { isControlVector, readControlVector } from './control-vector.js';
import type { DirectionNumbering, TaskVectorInfo, VectorOrigin } from './vector-origin.js';

export const VECTOR_TENSOR = 'task_vector';
export const VECTOR_FORMAT = 'xpatch.task-vector/1';

/** What `TaskVector.load` reads: a saved vector, one position of a capture, or a control vector. */
export async function readVectorFile(
  path: string,
  {
    position,
    hook,
    numbering,
  }: { position?: number | undefined; hook?: HookName | undefined; numbering?: DirectionNumbering | undefined },
): Promise<{ info: TaskVectorInfo; data: Float32Array }> {
  if (isControlVector(path)) {
    if (position === undefined) return readControlVector(path, numbering ?? 'applied');
    throw new XpatchError('INVALID_ARGUMENT', `${path} is a control vector, which has no position ${position}.`);
  }
  if (numbering !== undefined) {
    throw new XpatchError('INVALID_ARGUMENT', `${path} has its own layer numbers: leave out numbering.`);
  }
  await using fields = await Fields.open(path, 'VECTOR_INVALID');
  const { tensors } = fields.file;
  if (tensors.has(VECTOR_TENSOR)) return await readVector(fields, position);
  if (HOOKS.some((hook) => tensors.has(hook))) return onePosition(fields, await readStates(fields, hook), position);
  const names = [...tensors.keys()].slice(0, 5).join(', ') || 'none';
  throw fields.invalid(`it has neither a tensor ${VECTOR_TENSOR} nor ${HOOKS.join(', ')} (its tensors: ${names})`);
}

async function readVector(fields: Fields, position: number | undefined) {
  if (position !== undefined) {
    throw fields.invalid(`it is a single vector, so position ${position} cannot be chosen`, 'Leave out the position.');
  }
  const format = fields.text('format');
  if (format !== VECTOR_FORMAT) throw fields.invalid(`its format is ${format}, this version reads ${VECTOR_FORMAT}`);
  const model = fields.model();
  const layers = fields.counts('layers');
  const width = fields.file.tensors.get(VECTOR_TENSOR)?.shape[1] ?? 0;
  fields.requireShape(VECTOR_TENSOR, [layers.length, STREAM_HOOKS.includes(fields.hook()) ? model.nEmbd : width]);
  const info = {
    model,
    hook: fields.hook(),
    layers,
    heads: fields.has('heads') ? fields.counts('heads') : undefined,
    readPosition: fields.text('read_position'),
    origin: readOrigin(fields),
  };
  return { info, data: await fields.file.readFloat32(VECTOR_TENSOR) };
}

function readOrigin(fields: Fields): VectorOrigin {
  const value = fields.json('origin');
  if (isOrigin(value, 0)) return value;
  throw fields.invalid('its metadata key origin does not say how the vector was made');
}

function onePosition(
  fields: Fields,
  { info, data }: { info: HiddenStatesInfo; data: Float32Array },
  position: number | undefined,
) {
  const { hook, layers, heads, positions, tokens, model } = info;
  const index = position === undefined && positions.length === 1 ? 0 : positions.indexOf(position ?? -1);
  if (index < 0) {
    const problem =
      position === undefined
        ? `it is a capture of ${positions.length} positions, but a vector has one`
        : `it is a capture without position ${position}`;
    throw fields.invalid(problem, `Name one of its positions: ${summarise(positions)}.`);
  }
  const token = tokens[index] as number;
  const states = new HiddenStates(info, data).select({ positions: [positions[index] as number] });
  const origin = { op: 'capture', position: positions[index] as number, token } as const;
  return { info: { model, hook, layers, heads, readPosition: 'position', origin }, data: states.data };
}

function summarise(positions: readonly number[]): string {
  const shown = positions.slice(0, 10).join(', ');
  return positions.length > 10 ? `${shown}, … (${positions.length})` : shown;
}

/** Arithmetic on arithmetic: nobody nests it deeper than this, and a hostile file must not exhaust the stack. */
const MAX_ORIGIN_DEPTH = 500;

function isTemplate(value: unknown): boolean {
  if (value === undefined || value === 'chat') return true;
  const { example, query, stop } = (value ?? {}) as Partial<Template>;
  return [example, query, ...[stop].flat()].every(isText);
}

function isOrigin(value: unknown, depth: number): value is VectorOrigin {
  if (typeof value !== 'object' || value === null || depth > MAX_ORIGIN_DEPTH) return false;
  const { op, of, ...rest } = value as Record<string, unknown>;
  const parents =
    Array.isArray(of) && of.length > 0 && of.every((origin) => isOrigin(origin, depth + 1)) ? of.length : 0;
  switch (op) {
    case 'prompts':
      return (
        isText(rest.task) &&
        ['text', 'image', 'instruction'].includes(rest.spec as string) &&
        isCount(rest.shots) &&
        isCount(rest.seed) &&
        isTemplate(rest.template) &&
        Array.isArray(rest.prompts) &&
        rest.prompts.every(isPromptRecord)
      );
    case 'capture':
      return isCount(rest.position) && Number.isSafeInteger(rest.token);
    case 'contrast':
      return (
        ['mean', 'pca'].includes(rest.method as string) &&
        [rest.positive, rest.negative].every((records) => Array.isArray(records) && records.every(isPromptRecord))
      );
    case 'control-vector':
      return rest.numbering === 'applied' || rest.numbering === 'measured';
    case 'function':
      return (
        Array.isArray(rest.heads) &&
        rest.heads.every((head) => isCount(head?.layer) && isCount(head?.head)) &&
        Array.isArray(rest.prompts) &&
        rest.prompts.every(isPromptRecord)
      );
    case 'mean':
      return parents > 0;
    case 'add':
    case 'subtract':
      return parents === 2;
    case 'scale':
      return parents === 1 && Number.isFinite(rest.factor);
    case 'random':
      return parents === 1 && isCount(rest.seed);
    case 'roll':
      return parents === 1 && isCount(rest.by);
    default:
      return false;
  }
}
