import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { XpatchError } from '../util/errors.js';
import { didYouMean } from '../util/nearest.js';
import { cachedFile, convertedFiles, convertedFolder, readRecord, repoFolder } from './cache.js';
import {
  type CatalogueEntry,
  type CatalogueFile,
  catalogueNames,
  encoderSource,
  findEntry,
  shippedFiles,
} from './catalogue.js';
import { chooseFiles, formatHubSource, HUB_PREFIX, parseHubSource } from './hub-source.js';

/** A file on the hub, or with `encoder` a model and the picture encoder of its repository. */
export interface Wanted {
  /** `hf:` URI. */
  readonly uri: string;
  readonly encoder: boolean;
  /** What the catalogue says of its content. */
  readonly sha256?: string;
}

/** The files of a model on this machine. */
export interface ModelFiles {
  readonly model: string;
  readonly mmproj?: string;
}

type Place = string | Wanted;

/**
 * The files of a model that is on this machine.
 *
 * @param source name of the catalogue, path of a GGUF file, or `hf:` URI
 * @param mmproj path or `hf:` URI of the picture encoder. Defaults to the one of the catalogue or of the hub's repository
 * @throws {XpatchError} FILE_NOT_FOUND; MODEL_NOT_DOWNLOADED; INVALID_ARGUMENT for a URI that is none
 */
export function resolveModel(source: string, mmproj?: string): ModelFiles {
  const { files, missing } = locateModel(source, mmproj);
  if (files) return files;
  const what = missing.map(({ uri }) => uri).join(' and ');
  const command = missing.length === 1 && missing[0]?.uri !== source ? (missing[0]?.uri ?? source) : source;
  throw new XpatchError(
    'MODEL_NOT_DOWNLOADED',
    `${what} ${missing.length > 1 ? 'are' : 'is'} not on this machine. Download with \`xpatch models pull ${command}\`.`,
  );
}

export type Located =
  | { readonly files: ModelFiles; readonly missing?: undefined }
  | { readonly files?: undefined; readonly missing: readonly Wanted[] };

/** The files of a model, or what has to be downloaded for them. No network is asked. @throws as resolveModel */
export function locateModel(source: string, mmproj?: string): Located {
  const places = placesOf(source, mmproj);
  const model = locate(places.model);
  const encoder = places.mmproj === undefined ? undefined : locate(places.mmproj, true);
  const missing = [places.model, places.mmproj].filter(
    (place): place is Wanted => typeof place === 'object' && (place === places.model ? model : encoder) === undefined,
  );
  if (missing.length > 0 || !model) return { missing };
  return { files: { model: model.model, ...definedMmproj(encoder?.model ?? model.mmproj) } };
}

function definedMmproj(mmproj: string | undefined): { mmproj?: string } {
  return mmproj === undefined ? {} : { mmproj };
}

function placesOf(source: string, mmproj: string | undefined): { model: Place; mmproj?: Place } {
  const given = mmproj === undefined ? undefined : placeOfEncoder(mmproj);
  if (source.startsWith(HUB_PREFIX)) {
    const uri = formatHubSource(parseHubSource(source));
    return { model: { uri, encoder: given === undefined }, mmproj: given };
  }
  const entry = findEntry(source);
  if (!entry) return { model: source, mmproj: given };
  const shipped = shippedFiles(entry);
  const { path, published } = encoderSource(entry);
  for (const file of [shipped?.model, shipped?.mmproj, path]) {
    if (file !== undefined && !existsSync(file)) {
      throw new XpatchError(
        'FILE_NOT_FOUND',
        `The shipped '${source}' is incomplete: ${file} is missing. Reinstall xpatch.`,
      );
    }
  }
  if (shipped) return { model: shipped.model, mmproj: given ?? shipped.mmproj };
  const { files } = entry;
  if (files) return { model: wanted(files.model), mmproj: given ?? path ?? (published && wanted(published)) };
  return placesOfConverted(entry, given);
}

function placesOfConverted(
  { name, title, convert }: CatalogueEntry,
  given: Place | undefined,
): { model: Place; mmproj?: Place } {
  const found = convertedFiles(name);
  const [encoders, models] = [true, false].map((isEncoder) =>
    found.filter((file) => basename(file).startsWith('mmproj') === isEncoder),
  ) as [string[], string[]];
  const [model] = models;
  if (model !== undefined && models.length === 1 && encoders.length <= 1)
    return { model, mmproj: given ?? encoders[0] };
  if (found.length > 0) {
    const message = `There are several conversions of ${title}: name the files with -m and --mmproj, from ${found.join(', ')}.`;
    throw new XpatchError('FILE_NOT_FOUND', message);
  }
  const folder = repoFolder(parseHubSource(convert?.source ?? ''));
  throw new XpatchError(
    'MODEL_NOT_DOWNLOADED',
    `No GGUF of ${title} is published that xpatch can run: it is converted from ${convert?.source}. \`xpatch models pull ${name}\` downloads that, then \`xpatch models convert ${folder} -o ${convertedFolder(name)} --type q4_k\` converts it, and -m ${name} finds it.`,
  );
}

function wanted({ uri, sha256 }: CatalogueFile): Wanted {
  return { uri, encoder: false, ...(sha256 !== undefined && { sha256 }) };
}

function placeOfEncoder(mmproj: string): Place {
  if (!mmproj.startsWith(HUB_PREFIX)) return mmproj;
  const source = parseHubSource(mmproj);
  if (source.file !== undefined) return { uri: formatHubSource(source), encoder: false };
  const message = `${mmproj} names no file: give an mmproj on the hub as hf:USER/REPO/FILE.gguf. One in the model's own repository is found without --mmproj.`;
  throw new XpatchError('INVALID_ARGUMENT', message);
}

function locate(place: Place, isEncoder = false): ModelFiles | undefined {
  if (typeof place === 'object') return locateWanted(place);
  if (existsSync(place)) return { model: place };
  if (isEncoder) {
    const message = `There is no mmproj '${place}'. Give the path of a GGUF file, or a URI such as hf:USER/REPO/FILE.gguf.`;
    throw new XpatchError('FILE_NOT_FOUND', message);
  }
  throw new XpatchError(
    'FILE_NOT_FOUND',
    `There is no model '${place}'.${didYouMean(place, catalogueNames())} Give the path of a GGUF file, a URI such as hf:USER/REPO:Q4_K_M, or one of: ${catalogueNames().join(', ')}.`,
  );
}

/** Where the files of a URI are in the cache; undefined unless all of them are there. */
export function locateWanted({ uri, encoder, sha256 }: Wanted): ModelFiles | undefined {
  const source = parseHubSource(uri);
  const record = readRecord(source);
  if (!record) return undefined;
  try {
    const chosen = chooseFiles(record.files, source, encoder);
    // Another content than the catalogue knows is only taken by its URI.
    if (sha256 !== undefined && chosen.model[0]?.hash !== `sha256:${sha256}`) return undefined;
    const model = chosen.model.map((file) => cachedFile(record, file));
    const mmproj = chosen.mmproj && cachedFile(record, chosen.mmproj);
    if (model.includes(undefined) || (chosen.mmproj && mmproj === undefined)) return undefined;
    return { model: model[0] as string, ...definedMmproj(mmproj) };
  } catch (error) {
    // The list is from an earlier day: the hub may have it now.
    if (error instanceof XpatchError && error.code === 'FILE_NOT_FOUND') return undefined;
    throw error;
  }
}
