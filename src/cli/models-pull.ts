import { checkModelFile } from '../gguf/gguf-check.js';
import { checkProjectorFile } from '../gguf/mmproj-check.js';
import {
  type CachedRepo,
  convertedFiles,
  convertedFolder,
  listCache,
  removeConverted,
  removeFromCache,
} from '../hub/cache.js';
import { findEntry, publishedUris } from '../hub/catalogue.js';
import { type DownloadPlan, downloadCheckpoint, downloadModel } from '../hub/download.js';
import { chooseFiles, HUB_PREFIX, type HubSource, parseHubSource } from '../hub/hub-source.js';
import { XpatchError } from '../util/errors.js';
import { RunLock } from '../util/run-lock.js';
import { defineCommand } from './command.js';
import { fetchEvents } from './common.js';
import { bytesText, downloadEvents, requireEntry } from './fetch-model.js';
import { several, vary } from './option.js';
import { OUTPUT_OPTIONS } from './options.js';
import type { ProgressLine } from './progress.js';
import type { Terminal } from './terminal.js';

const SOURCES = {
  models: vary(
    several('Names that models list shows, or hf:USER/REPO, hf:USER/REPO:Q4_K_M, hf:USER/REPO/FILE.gguf', {
      completes: 'model',
    }),
    { required: true },
  ),
};

/** What became of one of them. */
interface Pulled {
  readonly source: string;
  readonly licence?: string;
  readonly model?: string;
  readonly mmproj?: string;
  /** The checkpoint of a model that has to be converted. */
  readonly checkpoint?: string;
}

/** `xpatch models pull` */
export const pull = defineCommand({
  command: 'pull <models..>',
  describe: 'Download models; an interrupted download resumes where it stopped',
  positionals: SOURCES,
  options: OUTPUT_OPTIONS,
  examples: [
    ['A model from the paper, with its picture encoder', 'models pull llava-1.5-7b'],
    ['Any GGUF on the hub', 'models pull hf:ggml-org/gemma-3-4b-it-GGUF:Q8_0'],
    ['A checkpoint to convert', 'models pull idefics2-8b'],
  ],
  run: async ({ models, json, quiet }, terminal) => {
    for (const source of models) if (!source.startsWith(HUB_PREFIX)) requireEntry(source);
    using progress = terminal.progress({ json, quiet });
    const pulled: Pulled[] = [];
    for (const source of models) pulled.push(await pullOne(source, terminal, progress));
    progress.done();
    if (json) terminal.printJson({ models: pulled });
    else terminal.print(pulled.map(describe).join(''));
  },
});

async function pullOne(source: string, terminal: Terminal, progress: ProgressLine): Promise<Pulled> {
  const entry = findEntry(source);
  const shown = downloadEvents(entry, fetchEvents(terminal, progress));
  let licence: string | undefined;
  const onPlan = (plan: DownloadPlan) => {
    licence ??= plan.licence;
    shown.onPlan?.(plan);
  };
  const events = { ...shown, onPlan };
  progress.update(`asking for ${source}`);
  if (entry?.convert)
    return { source, checkpoint: await downloadCheckpoint(entry.convert.source, events), ...(licence && { licence }) };
  const files = await downloadModel(source, events);
  progress.update(`checking ${source}`);
  checkModelFile(files.model);
  if (files.mmproj !== undefined) checkProjectorFile(files.mmproj);
  return { source, ...files, ...(licence && { licence }) };
}

function describe({ source, model, mmproj, checkpoint }: Pulled): string {
  if (checkpoint !== undefined) {
    const command = `xpatch models convert ${checkpoint} -o ${convertedFolder(source)} --type q4_k`;
    return `${source}: the checkpoint is in ${checkpoint}\nConvert it: ${command}\nThen use -m ${source}\n`;
  }
  return `${source}: ready, use -m ${source}\n${[model, mmproj]
    .filter((path) => path !== undefined)
    .map((path) => `  ${path}\n`)
    .join('')}`;
}

/** `xpatch models rm` */
export const rm = defineCommand({
  command: 'rm <models..>',
  describe: 'Remove downloaded models; your files elsewhere are never touched',
  positionals: SOURCES,
  options: OUTPUT_OPTIONS,
  examples: [
    ['A model by name', 'models rm llava-1.5-7b'],
    ['Everything from a repository, even if incomplete', 'models rm hf:ggml-org/gemma-3-4b-it-GGUF'],
  ],
  run: async ({ models, json }, terminal) => {
    // All are looked up first, so that a wrong name removes nothing.
    const found = models.map((source) => ({ source, targets: targetsOf(source) }));
    const removed: { source: string; files: string[]; bytes: number }[] = [];
    for (const { source, targets } of found) {
      for (const target of targets) removed.push({ source, ...(await removeOne(target)) });
      if (convertedFiles(source).length > 0) removed.push({ source, ...removeConverted(source) });
    }
    const bytes = removed.reduce((sum, one) => sum + one.bytes, 0);
    if (json) return terminal.printJson({ removed, bytes });
    const lines = removed.flatMap(({ files }) => files.map((file) => `removed ${file}\n`));
    terminal.print(`${lines.join('')}${bytesText(bytes)} freed.\n`);
  },
});

interface Target {
  readonly repo: CachedRepo;
  /** Undefined for everything. */
  readonly source?: HubSource;
}

function targetsOf(source: string): Target[] {
  const entry = source.startsWith(HUB_PREFIX) ? undefined : requireEntry(source);
  if (entry?.shipped) {
    throw new XpatchError('INVALID_ARGUMENT', `${source} comes with xpatch and is removed with it.`);
  }
  const uris = entry ? [...publishedUris(entry), entry.convert?.source] : [source];
  const repos = listCache();
  const targets = uris.flatMap((uri): Target[] => {
    if (uri === undefined) return [];
    const wanted = parseHubSource(uri);
    const repo = repos.find(
      ({ record: { user, repo: name, revision } }) =>
        user === wanted.user && name === wanted.repo && revision === wanted.revision,
    );
    if (!repo) return [];
    return [wanted.file === undefined && wanted.quantisation === undefined ? { repo } : { repo, source: wanted }];
  });
  if (targets.length > 0 || (entry && convertedFiles(entry.name).length > 0)) return targets;
  throw new XpatchError(
    'MODEL_NOT_DOWNLOADED',
    `Nothing from ${source} is in the cache. \`xpatch models list\` shows what is.`,
  );
}

async function removeOne({ repo, source }: Target): Promise<{ files: string[]; bytes: number }> {
  // The second file of an entry may be gone with the folder of the first.
  const current = listCache().find(({ folder }) => folder === repo.folder);
  if (!current) return { files: [], bytes: 0 };
  using _lock = await RunLock.acquire(repo.folder, 'The model in');
  if (!source) return await removeFromCache(current);
  const chosen = chooseFiles(current.record.files, source, false).model.map(({ path }) => path);
  const left = current.files.filter(({ path }) => !chosen.includes(path));
  // A picture encoder without a model is useless.
  const useless = left.every(({ path }) => /mmproj/i.test(path));
  return await removeFromCache(current, useless ? undefined : chosen);
}
