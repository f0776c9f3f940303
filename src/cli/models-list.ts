import { existsSync } from 'node:fs';
import { cacheBytes, cachedFile, cacheFolder, listCache, readRecord } from '../hub/cache.js';
import { type CatalogueEntry, findEntry, listCatalogue, memoryOf } from '../hub/catalogue.js';
import { lookUpRepo } from '../hub/download.js';
import { formatHubSource, HUB_PREFIX, parseHubSource } from '../hub/hub-source.js';
import { fastestWeights } from '../studies/type-speeds.js';
import { defineCommand } from './command.js';
import { fetchEvents } from './common.js';
import { bytesText, licenceText, requireEntry } from './fetch-model.js';
import { describeModelFile, factLines, modelFileInfo } from './model-file-info.js';
import { type ModelState, type State, stateOf, unnamedFiles } from './models-state.js';
import { text, vary } from './option.js';
import { OUTPUT_OPTIONS, type OutputArguments } from './options.js';
import type { Terminal } from './terminal.js';

const HERE: Record<State, string> = {
  shipped: 'yes',
  downloaded: 'yes',
  checkpoint: 'to convert',
  incomplete: 'partly',
  absent: '–',
};

/** `xpatch models list` */
export const list = defineCommand({
  command: 'list',
  describe: 'Models that -m knows by name, and which are downloaded',
  options: OUTPUT_OPTIONS,
  examples: [
    ['All of them', 'models list'],
    ['For a script', 'models list --json'],
  ],
  run: ({ json, quiet }, terminal) => {
    const damaged: string[] = [];
    const repos = listCache(({ message }) => damaged.push(message));
    const entries = listCatalogue();
    const models = entries.map((entry) => ({ ...entry, ...stateOf(entry, repos), memory: memoryOf(entry) }));
    const others = repos.flatMap((repo) => unnamedFiles(repo, entries));
    const bytes = cacheBytes();
    if (json) {
      const problems = damaged.length > 0 && { damaged };
      return terminal.printJson({ cache: cacheFolder(), bytes, models, others, ...problems });
    }
    if (!quiet) for (const message of damaged) terminal.say(`xpatch: ${message}\n`);
    const rows = models.map((model) => [
      `${model.name}${model.paper ? ' *' : ''}`,
      model.kind,
      bytesText(model.bytes),
      bytesText(model.memory),
      HERE[model.state],
      `${model.licence.name}${model.licence.use === 'research' ? ', RESEARCH ONLY' : ''}`,
    ]);
    const lines = [
      ...columns([['name', 'kind', 'size', 'memory', 'here', 'licence'], ...rows]),
      '* from the paper. `xpatch models info NAME` shows more, `xpatch models pull NAME` downloads.',
      ...(others.length > 0 ? ['', 'Other downloaded files:'] : []),
      ...others.map(({ path, size }) => `  ${bytesText(size).padStart(7)}  ${path}`),
      `Downloads take ${bytesText(bytes)} in ${cacheFolder()}`,
    ];
    terminal.print(`${lines.join('\n')}\n`);
  },
});

function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column] as number))
      .join('  ')
      .trimEnd(),
  );
}

/** `xpatch models info` */
export const info = defineCommand({
  command: 'info <model>',
  describe: 'What is known about a model: files, memory, licence, prompts, best layer',
  positionals: {
    model: vary(
      text('Name that models list shows, a GGUF file, or hf:USER/REPO, which asks the hub', { completes: 'model' }),
      { required: true },
    ),
  },
  options: OUTPUT_OPTIONS,
  examples: [
    ['A model from the paper', 'models info idefics2-8b'],
    ['Your own file', 'models info model.gguf'],
    ['What a repository on the hub offers', 'models info hf:ggml-org/gemma-3-4b-it-GGUF'],
  ],
  run: async ({ model: source, ...output }, terminal) => {
    if (source.startsWith(HUB_PREFIX)) return showRepo(source, output, terminal);
    if (!findEntry(source) && existsSync(source)) {
      const file = modelFileInfo(source);
      if (output.json) terminal.printJson(file);
      else terminal.print(`${describeModelFile(file)}${await fastestWeights()}\n`);
      return;
    }
    const entry = requireEntry(source);
    const state = stateOf(entry, listCache());
    if (output.json) terminal.printJson({ ...entry, ...state, memory: memoryOf(entry) });
    else terminal.print(`${describe(entry, state)}${await fastestWeights()}\n`);
  },
});

function describe(entry: CatalogueEntry, { state, bytes, paths }: ModelState): string {
  const { name, title, kind, paper, files, convert, layers, baseModel, prompt, template, chat, bestLayer, note } =
    entry;
  const file = (one: { uri: string; sha256?: string }) => `${one.uri}${one.sha256 ? `, SHA-256 ${one.sha256}` : ''}`;
  const here = {
    ...HERE,
    absent: `no: xpatch models pull ${name}`,
    checkpoint: 'the checkpoint, still to be converted',
  }[state];
  const facts: [string, string | undefined][] = [
    ['kind', `${kind === 'vlm' ? 'vision-language model' : 'language model'}${paper ? ' from the paper' : ''}`],
    ['licence', licenceText(entry)],
    ['model', files && file(files.model)],
    ['mmproj', typeof files?.mmproj === 'string' ? 'comes with xpatch' : files?.mmproj && file(files.mmproj)],
    ['convert from', convert?.source],
    ['size', `${files?.model.exact === false ? 'about ' : ''}${bytesText(bytes)}`],
    ['memory', `about ${bytesText(memoryOf(entry))}, with 4096 positions`],
    ['here', here],
    ...paths.map((path): [string, string] => ['', path]),
    ['layers', String(layers)],
    [
      'best layer',
      bestLayer ? `${bestLayer.layer} (${bestLayer.source})` : 'none known: find it with xpatch sweep or eval',
    ],
    ['language model', baseModel],
    [
      'prompts',
      prompt === 'plain' ? 'one text, no chat template' : 'segments, built like those of Mantis, no chat template',
    ],
    [
      'in eval',
      template && `${JSON.stringify(template.example + template.query)}; --set template=paper for the paper's`,
    ],
    ['chat template', chat ?? 'none: it was not trained on one'],
    ['note', note],
  ];
  return `${name}: ${title}\n${factLines(facts)}`;
}

async function showRepo(uri: string, { json, quiet }: OutputArguments, terminal: Terminal): Promise<void> {
  const source = parseHubSource(uri);
  const record = readRecord(source);
  const progress = terminal.progress({ json, quiet });
  progress.update('asking the hub');
  const repo = await lookUpRepo(uri, fetchEvents(terminal, progress)).finally(() => progress.done());
  const files = repo.files
    .filter(({ path }) => path.endsWith('.gguf'))
    .map((file) => ({ ...file, here: record !== undefined && cachedFile(record, file) !== undefined }));
  if (json) return terminal.printJson({ ...repo, files });
  const where = formatHubSource({ ...source, file: undefined, quantisation: undefined });
  const access = repo.gated ? ', its owner grants access' : '';
  const rows = files.map(({ path, size, here }) => [
    `  ${bytesText(size).padStart(7)}`,
    path,
    here ? 'downloaded' : '',
  ]);
  const lines = [
    `${where}: ${repo.licence === undefined ? 'no licence is declared' : `licence ${repo.licence}`}${access}`,
    ...(rows.length > 0 ? [...columns(rows), await fastestWeights()] : ['  It has no GGUF file.']),
  ];
  terminal.print(`${lines.join('\n')}\n`);
}
