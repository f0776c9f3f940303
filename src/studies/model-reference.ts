import { join } from 'node:path';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { SafetensorsFile } from '../util/safetensors.js';

/** The script that makes references, which needs Python and transformers. */
export const DUMP_SCRIPT = join(PACKAGE_ROOT, 'scripts', 'verify-model', 'dump.py');

/** What another implementation computed for one prompt. */
export interface ReferencePrompt {
  parts: PromptPart[];
  /** The expanded prompt, -1 for a row of a picture. */
  tokens: Int32Array;
  /** `[layers, positions, nEmbd]`: the output of every block, before the final norm. */
  states: { data: Float32Array; shape: [number, number, number] };
  /** Of the last position, `[nVocab]`. */
  logits: Float32Array;
  /** The rows of all pictures, `[rows, nEmbd]`, as they enter the first block; empty without pictures. */
  embeddings: Float32Array;
}

/** A file of DUMP_SCRIPT. */
export interface ModelReference extends AsyncDisposable {
  /** What made it, such as `transformers 5.23.0, torch 2.15.0`. */
  madeWith: string;
  model: string;
  /** Number of prompts; each is read when it is asked for. */
  length: number;
  read(index: number): Promise<ReferencePrompt>;
}

type ListedPart = { text: string } | { tokens: number[] } | { picture: string };
interface ListedPrompt {
  parts: ListedPart[];
  embeddings: string[];
}

/**
 * Opens a reference.
 *
 * @throws XpatchError FILE_NOT_FOUND, SAFETENSORS_INVALID, REFERENCE_INVALID when the file is something else.
 */
export async function openReference(path: string): Promise<ModelReference> {
  const file = await SafetensorsFile.open(path);
  const invalid = (why: string) =>
    new XpatchError('REFERENCE_INVALID', `'${path}' is not a reference: ${why}. Make one with ${DUMP_SCRIPT}.`);
  const { metadata } = file;
  try {
    if (metadata['xpatch.reference'] !== '1') throw invalid('its metadata does not say xpatch.reference 1');
    const prompts = parsePrompts(metadata.prompts ?? '', invalid);
    const shapeOf = (name: string, length: number) => {
      const shape = file.tensors.get(name)?.shape;
      if (shape?.length !== length || shape.includes(0))
        throw invalid(`the tensor ${JSON.stringify(name)} does not fit`);
      return shape;
    };
    const picture = async (name: string) => {
      const [height = 0, width = 0, colours] = shapeOf(name, 3);
      const data = await file.read(name);
      if (colours !== 3 || !(data instanceof Uint8Array))
        throw invalid(`the picture ${JSON.stringify(name)} is not RGB`);
      return { image: { data, width, height } };
    };
    const readPart = (part: ListedPart): PromptPart | Promise<PromptPart> =>
      'text' in part ? part.text : 'tokens' in part ? part : picture(part.picture);
    const read = async (index: number): Promise<ReferencePrompt> => {
      const { parts, embeddings } = prompts[index] as ListedPrompt;
      const shape = shapeOf(`${index}.states`, 3) as [number, number, number];
      const tokens = await file.read(`${index}.tokens`);
      if (!(tokens instanceof Int32Array) || tokens.length !== shape[1])
        throw invalid(`its tokens are not the ${shape[1]} positions of its states`);
      const rows = await Promise.all(embeddings.map((name) => file.readFloat32(name)));
      return {
        parts: await Promise.all(parts.map(readPart)),
        tokens,
        states: { data: await file.readFloat32(`${index}.states`), shape },
        logits: await file.readFloat32(`${index}.logits`),
        embeddings: concatenate(rows),
      };
    };
    const madeWith = `transformers ${metadata.transformers ?? '?'}, torch ${metadata.torch ?? '?'}`;
    return {
      madeWith,
      model: metadata.model ?? '',
      length: prompts.length,
      read,
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

function parsePrompts(text: string, invalid: (why: string) => XpatchError): ListedPrompt[] {
  let listed: unknown;
  try {
    listed = JSON.parse(text);
  } catch {
    throw invalid('its list of prompts is not JSON');
  }
  const isPart = (part: unknown) => {
    const { text, tokens, picture } = (part ?? {}) as Record<string, unknown>;
    const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < 2 ** 31;
    if (Array.isArray(tokens)) return tokens.every(isId);
    return typeof text === 'string' || typeof picture === 'string';
  };
  const isPrompt = (prompt: unknown) => {
    const { parts, embeddings } = (prompt ?? {}) as Record<string, unknown>;
    return (
      Array.isArray(parts) &&
      parts.every(isPart) &&
      Array.isArray(embeddings) &&
      embeddings.every((name) => typeof name === 'string')
    );
  };
  if (!Array.isArray(listed) || listed.length === 0 || !listed.every(isPrompt))
    throw invalid('its list of prompts is not a list');
  return listed;
}

export function concatenate(pieces: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
