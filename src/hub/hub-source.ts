import { posix } from 'node:path';
import { PART, splitPaths } from '../gguf/split.js';
import { XpatchError } from '../util/errors.js';

/** What an `hf:` URI names: a repository of the Hugging Face hub, and a file or a quantisation in it. */
export interface HubSource {
  readonly user: string;
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  /** Path of a GGUF file in the repository. */
  readonly file?: string;
  /** Such as `Q4_K_M`, in capitals. */
  readonly quantisation?: string;
}

/** A file of a repository, as the hub lists it. */
export interface HubFile {
  /** With slashes. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** `sha256:` of the content, or `git:` and the object id of a small file that is kept in git itself. */
  readonly hash: string;
}

export interface ChosenFiles {
  /** The GGUF files of the text model: one, or all parts in order. */
  readonly model: readonly HubFile[];
  readonly mmproj?: HubFile;
}

export const HUB_PREFIX = 'hf:';
const DEFAULT_REVISION = 'main';
/** What is taken where none is named: as llama.cpp does. */
const DEFAULT_QUANTISATION = 'Q4_K_M';
/** Of several picture encoders the one nearest to the trained weights, that every backend can run. */
const ENCODER_ORDER = ['F16', 'BF16', 'Q8_0', 'F32'];

const NAME = /^[A-Za-z0-9][\w.-]{0,95}$/;
const REVISION = /^[\w][\w./-]{0,99}$/;

/**
 * `hf:USER/REPO`, `hf:USER/REPO:QUANTISATION` or `hf:USER/REPO/FILE.gguf`, each with `#REVISION` after it or not.
 *
 * @throws {XpatchError} INVALID_ARGUMENT
 */
export function parseHubSource(uri: string): HubSource {
  const [, path = '', revision = DEFAULT_REVISION] = /^hf:([^#]*)(?:#(.*))?$/s.exec(uri) ?? [];
  const [user = '', second = '', ...rest] = path.split('/');
  const [repo = '', quantisation] = rest.length > 0 ? [second] : second.split(':');
  const file = rest.length > 0 ? rest.join('/') : undefined;
  const right =
    NAME.test(user) &&
    NAME.test(repo) &&
    REVISION.test(revision) &&
    !revision.includes('..') &&
    (file === undefined || (isSafePath(file) && file.endsWith('.gguf'))) &&
    (quantisation === undefined || /^[A-Za-z]\w{0,30}$/.test(quantisation));
  if (right) return { user, repo, revision, file, quantisation: quantisation?.toUpperCase() };
  throw new XpatchError(
    'INVALID_ARGUMENT',
    `${JSON.stringify(uri)} is not a model on the hub. Write hf:USER/REPO, hf:USER/REPO:Q4_K_M or hf:USER/REPO/FILE.gguf, followed by #REVISION if it is not main.`,
  );
}

/** The same as a URI. */
export function formatHubSource({ user, repo, revision, file, quantisation }: HubSource): string {
  const what = file === undefined ? '' : `/${file}`;
  const kind = quantisation === undefined ? '' : `:${quantisation}`;
  return `${HUB_PREFIX}${user}/${repo}${what}${kind}${revision === DEFAULT_REVISION ? '' : `#${revision}`}`;
}

export function isDefaultRevision(revision: string): boolean {
  return revision === DEFAULT_REVISION;
}

/** Whether a path of a repository can be a path in a folder of ours: a server's list is not to be trusted. */
export function isSafePath(path: string): boolean {
  return (
    path.length > 0 &&
    path.length <= 400 &&
    path.split('/').every((part) => /^[^\\:*?"<>|\p{C}]+$/u.test(part) && !part.startsWith('.') && !/[. ]$/.test(part))
  );
}

/**
 * The files of a repository that a source means.
 *
 * @param encoder whether the picture encoder belongs to it
 * @throws {XpatchError} FILE_NOT_FOUND, naming what there is
 */
export function chooseFiles(files: readonly HubFile[], source: HubSource, encoder: boolean): ChosenFiles {
  const where = formatHubSource({ ...source, file: undefined, quantisation: undefined });
  const missing = (why: string) => new XpatchError('FILE_NOT_FOUND', why);
  const listed = files.filter(({ path }) => path.endsWith('.gguf'));
  if (source.file !== undefined) {
    const found = listed.find(({ path }) => path === source.file);
    if (!found) throw missing(`${where} has no file ${source.file}. ${offer(listed, where)}`);
    const model = partsOf(found, listed);
    return { model, ...(encoder && !isEncoder(found.path) && encoderOf(listed, found.path)) };
  }
  const models = listed.filter(({ path }) => !isEncoder(path) && !/imatrix/i.test(path) && partNumber(path) <= 1);
  const candidates =
    source.quantisation !== undefined
      ? models.filter(({ path }) => hasQuantisation(path, source.quantisation as string))
      : models.length === 1
        ? models
        : models.filter(({ path }) => hasQuantisation(path, DEFAULT_QUANTISATION));
  const [found] = candidates;
  if (!found || candidates.length > 1) {
    const what = source.quantisation ?? (found ? DEFAULT_QUANTISATION : `file of ${DEFAULT_QUANTISATION}`);
    throw missing(`${where} has ${found ? 'several files of' : 'no'} ${what}. ${offer(models, where)}`);
  }
  return { model: partsOf(found, listed), ...(encoder && encoderOf(listed, found.path)) };
}

/** What a Hugging Face checkpoint consists of, for conversion. @throws {XpatchError} FILE_NOT_FOUND */
export function chooseCheckpoint(files: readonly HubFile[], source: HubSource): HubFile[] {
  const chosen = files.filter(({ path }) => CHECKPOINT.test(path));
  if (chosen.some(({ path }) => path.endsWith('.safetensors'))) return chosen;
  throw new XpatchError(
    'FILE_NOT_FOUND',
    `${formatHubSource(source)} has no safetensors files, and only those can be converted. If a revision has them, name it with #REVISION.`,
  );
}

/** README.md says what the licence is. */
const CHECKPOINT = /^([^/]+\.safetensors|[^/]+\.json|tokenizer\.model|README\.md|LICENSE[^/]*|chat_template\.jinja)$/;

function isEncoder(path: string): boolean {
  return /mmproj/i.test(posix.basename(path));
}

function hasQuantisation(path: string, quantisation: string): boolean {
  const stem = path.replace(PART, '').replace(/\.gguf$/, '');
  return new RegExp(`(^|[-._/])${quantisation}($|[-._/])`, 'i').test(stem);
}

function encoderOf(files: readonly HubFile[], model: string): { mmproj?: HubFile } {
  const rank = ({ path }: HubFile) => {
    const known = ENCODER_ORDER.findIndex((kind) => hasQuantisation(path, kind));
    const near = posix.dirname(path) === posix.dirname(model) ? 0 : ENCODER_ORDER.length + 1;
    return near + (known < 0 ? ENCODER_ORDER.length : known);
  };
  const [mmproj] = files
    .filter(({ path }) => isEncoder(path))
    .sort((a, b) => rank(a) - rank(b) || (a.path < b.path ? -1 : 1));
  return mmproj ? { mmproj } : {};
}

function partNumber(path: string): number {
  return Number(PART.exec(path)?.[1] ?? 0);
}

/** All parts of a GGUF that is split over several files. */
function partsOf(file: HubFile, files: readonly HubFile[]): HubFile[] {
  const [, , count] = PART.exec(file.path) ?? [];
  if (count === undefined) return [file];
  return splitPaths(file.path).map((path) => {
    const part = files.find((other) => other.path === path);
    if (part) return part;
    throw new XpatchError('FILE_NOT_FOUND', `${file.path} is one of ${Number(count)} parts, but ${path} is missing.`);
  });
}

const OFFERED = 12;

function offer(files: readonly HubFile[], where: string): string {
  if (files.length === 0) return `It has no GGUF file.`;
  const names = files.filter(({ path }) => partNumber(path) <= 1).map(({ path }) => path);
  const more = names.length > OFFERED ? `, and ${names.length - OFFERED} more` : '';
  return `Name one of its files, ${where}/FILE: ${names.slice(0, OFFERED).join(', ')}${more}.`;
}
