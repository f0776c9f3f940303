import { statSync } from 'node:fs';
import { join } from 'node:path';
import { modelParts } from '../gguf/gguf-check.js';
import { type CachedRepo, convertedFiles } from '../hub/cache.js';
import { bytesOf, type CatalogueEntry, publishedUris, shippedFiles } from '../hub/catalogue.js';
import { chooseCheckpoint, parseHubSource } from '../hub/hub-source.js';
import { locateModel, locateWanted } from '../hub/resolve.js';

/** Whether a model is here: a `checkpoint` is completely downloaded but not yet converted. */
export type State = 'shipped' | 'downloaded' | 'checkpoint' | 'incomplete' | 'absent';

export interface ModelState {
  readonly state: State;
  /** Bytes that it takes here; if it is not here, about what it would take. */
  readonly bytes: number;
  /** Its files, or the folder of the checkpoint. */
  readonly paths: readonly string[];
}

/** What this machine has of a model of the catalogue. */
export function stateOf(entry: CatalogueEntry, repos: readonly CachedRepo[]): ModelState {
  const { name, files, convert } = entry;
  const shipped = shippedFiles(entry);
  const here = shipped ?? (files || convertedFiles(name).length > 0 ? locateModel(name).files : undefined);
  if (here) {
    const paths = Object.values(here).flatMap(modelParts);
    return { state: shipped ? 'shipped' : 'downloaded', bytes: bytesIn(paths), paths };
  }
  const bytes = bytesOf(entry);
  const uris = [...publishedUris(entry), convert?.source].filter((uri) => uri !== undefined);
  const own = repos.filter((repo) => uris.some((uri) => isFrom(repo, uri)));
  const [repo] = own;
  if (convert && repo) {
    const whole = chooseCheckpoint(repo.record.files, parseHubSource(convert.source)).every((file) =>
      repo.files.includes(file),
    );
    if (whole) return { state: 'checkpoint', bytes: repo.bytes, paths: [repo.folder] };
  }
  const begun =
    own.some(({ partial }) => partial > 0) || uris.some((uri) => files && locateWanted({ uri, encoder: false }));
  const some = convert !== undefined && own.some(({ files: complete }) => complete.length > 0);
  return { state: begun || some ? 'incomplete' : 'absent', bytes, paths: [] };
}

/** Complete GGUF files in the cache that belong to no name of the catalogue. */
export function unnamedFiles(repo: CachedRepo, entries: readonly CatalogueEntry[]): { path: string; size: number }[] {
  const named = entries.flatMap(publishedUris);
  const own = named.filter((uri) => isFrom(repo, uri)).map((uri) => parseHubSource(uri).file);
  return repo.files
    .filter(({ path }) => path.endsWith('.gguf') && !own.includes(path))
    .map(({ path, size }) => ({ path: join(repo.folder, ...path.split('/')), size }));
}

function isFrom({ record }: CachedRepo, uri: string): boolean {
  const { user, repo, revision } = parseHubSource(uri);
  return record.user === user && record.repo === repo && record.revision === revision;
}

function bytesIn(paths: readonly string[]): number {
  return paths.reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
}
