import { statSync } from 'node:fs';
import { type GgufArray, type GgufHeader, ggufNumber, readGgufHeader } from '../gguf/gguf.js';
import { checkModelFile, modelParts } from '../gguf/gguf-check.js';
import { checkProjectorFile } from '../gguf/mmproj-check.js';
import { typeName } from '../gguf/tensor-types.js';
import { printable } from '../util/printable.js';
import { bytesText } from './fetch-model.js';

/** What the header of a GGUF file says about a model or a picture encoder. @throws {XpatchError} as `readGgufHeader` */
export function modelFileInfo(path: string) {
  const header = readGgufHeader(path);
  const { metadata, tensors } = header;
  const architecture = text(header, 'general.architecture') ?? '';
  const isEncoder = architecture === 'clip';
  if (isEncoder) checkProjectorFile(path);
  else checkModelFile(path);
  const parts = modelParts(path);
  const number = (key: string) => ggufNumber(header, `${isEncoder ? 'clip.vision' : architecture}.${key}`);
  const types: Record<string, number> = {};
  for (const { type } of tensors) types[typeName(type)] = (types[typeName(type)] ?? 0) + 1;
  return {
    file: path,
    kind: isEncoder ? 'mmproj' : 'model',
    architecture,
    name: text(header, 'general.name'),
    licence: text(header, 'general.license'),
    bytes: parts.reduce((sum, part) => sum + statSync(part).size, 0),
    parts: parts.length,
    layers: number('block_count'),
    width: number('embedding_length'),
    heads: number('attention.head_count'),
    positions: number('context_length'),
    vocabulary: (metadata.get('tokenizer.ggml.tokens') as GgufArray | undefined)?.length,
    chatTemplate: metadata.has('tokenizer.chat_template'),
    projector: text(header, 'clip.projector_type'),
    types,
  };
}

function text({ metadata }: GgufHeader, key: string): string | undefined {
  const value = metadata.get(key);
  return typeof value === 'string' ? value : undefined;
}

export function describeModelFile(info: ReturnType<typeof modelFileInfo>): string {
  const { kind, architecture, name, licence, bytes, parts, layers, width, heads, positions, vocabulary } = info;
  const isModel = kind === 'model';
  const facts: [string, string | number | undefined][] = [
    ['kind', isModel ? 'model' : 'picture encoder (mmproj)'],
    ['name', name],
    ['architecture', isModel ? architecture : info.projector],
    ['licence', licence],
    ['size', `${bytesText(bytes)}${parts > 1 ? ` in ${parts} files` : ''}`],
    ['layers', layers],
    ['width', width],
    ['heads', heads],
    ['trained on', positions === undefined ? undefined : `${positions} positions`],
    ['vocabulary', vocabulary],
    ['chat template', isModel ? (info.chatTemplate ? 'yes' : 'none') : undefined],
    [
      'tensors',
      Object.entries(info.types)
        .map(([type, count]) => `${count} ${type}`)
        .join(', '),
    ],
  ];
  return `${printable(info.file)}\n${factLines(facts)}`;
}

/** A line for each fact that is known. */
export function factLines(facts: readonly (readonly [what: string, said: string | number | undefined])[]): string {
  const known = facts.filter(([, said]) => said !== undefined);
  return known.map(([what, said]) => `  ${what.padEnd(14)}  ${printable(String(said))}\n`).join('');
}
