import type { HookName } from '../hooks/types.js';
import type { ModelIdentity } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { lastPosition } from '../vectors/last-position.js';
import { TaskVector } from '../vectors/task-vector.js';
import type { DirectionNumbering } from '../vectors/vector-origin.js';
import { describeModel } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, dashed } from './option.js';
import { type PATCH_OPTIONS, theOne } from './options.js';

type PatchArguments = ArgumentsOf<typeof PATCH_OPTIONS>;

/** A vector as a command uses it, and what the user should know about it. */
export interface LoadedVector {
  file: string;
  vector: TaskVector;
  notes: string[];
}

/**
 * Loads what `--vector` names: a task vector, or a capture, read at the hook where it will be written. From a capture of several
 * positions it takes the one asked for, else the last one in the prompt, as that is where a task is read.
 */
export async function loadVector(
  file: string,
  {
    position,
    hook = 'resid_post',
    numbering,
  }: { position?: number | undefined; hook?: HookName | undefined; numbering?: DirectionNumbering | undefined } = {},
): Promise<LoadedVector> {
  const chosen = position ?? (await lastPosition(file));
  const vector = await TaskVector.load(file, { position: chosen, hook, numbering });
  if (vector.info.hook !== hook) {
    const problem = `${file} was read at '${vector.info.hook}' and would be written at '${hook}'`;
    throw new XpatchError('VECTOR_MISMATCH', `${problem}. Write it where it was read (--hook ${vector.info.hook}).`);
  }
  const silent = chosen === undefined || position !== undefined;
  const notes = silent
    ? []
    : [`${file} holds several positions; the last one, ${chosen}, is used (see --vector-position)`];
  return { file, vector, notes };
}

/** The vector of `--vector`, as the options with it say; undefined without one. */
export async function namedVector(args: {
  readonly vector?: readonly string[];
  readonly vectorPosition?: number;
  readonly hook?: readonly HookName[];
  readonly numbering?: DirectionNumbering;
}): Promise<LoadedVector | undefined> {
  const { vectorPosition: position, numbering } = args;
  const file = theOne('--vector', args.vector);
  return file === undefined ? undefined : loadVector(file, { position, hook: theOne('--hook', args.hook), numbering });
}

/**
 * Refuses half a patch: it would run unpatched without saying so.
 *
 * @param more what else needs a patch, by option
 */
export function requireWholePatch(args: PatchArguments, more: Readonly<Record<string, unknown>> = {}): void {
  const { vector, layers, positions, at, op, strength, vectorPosition, numbering } = args;
  if (vector !== undefined) {
    if (layers === undefined) throw usageError('--vector needs --layers: the blocks whose output is patched.');
    return;
  }
  const given = { layers, positions, at, op, strength, ...more, vectorPosition, numbering };
  const lonely = Object.entries(given).find(([, value]) => value !== undefined)?.[0];
  if (lonely) throw usageError(`--${dashed(lonely)} needs a patch: name the vector with --vector.`);
}

/** The layers to patch: `all` means those that the vector has. */
export function layersFor({ vector }: LoadedVector, layers: 'all' | readonly number[]): readonly number[] {
  return layers === 'all' ? vector.info.layers : layers;
}

/** Checks that the vector fits the model; one from another model of equal width is allowed, and noted. */
export function requireFit({ vector, notes }: LoadedVector, model: ModelIdentity): 'same' | 'foreign' {
  const relation = vector.requireCompatible(model);
  if (relation === 'foreign') {
    const from = describeModel(vector.info.model);
    notes.push(`the vector is from another model (${from}) than the one it is patched into (${describeModel(model)})`);
  }
  return relation;
}

/** The vector in results: its file, what was read, and from which model. */
export function vectorRecord({ file, vector }: LoadedVector) {
  const { model, hook, readPosition, origin } = vector.info;
  const numbered = origin.op === 'control-vector' && { numbering: origin.numbering };
  return { file, hook, readPosition: origin.op === 'capture' ? origin.position : readPosition, model, ...numbered };
}
