// Makes docs/results/runs/ again: every preset of `xpatch eval` on the shipped model, the text parts on SmolLM2-135M, and
// gemma-3-270m-xpatch.
//
//   node scripts/results.mjs OUT [--smollm2 FILE.gguf] [--quantised FOLDER] [--only NAME,NAME] [--stamps FOLDER] [--check]
//
// Runs go to OUT/NAME; one that was stopped resumes when the script is started again. --only takes beginnings of names. With --check
// nothing is written: every number with an interval is compared with the committed page, and 1 is the exit status if a number
// lies outside the interval there. --stamps names the
// folder of photographs that scripts/real-vlm has in its cache. FOLDER holds the other precisions that
// docs/results/experiments.md says how to make: demo-q8_0.gguf, smollm2-q4_k.gguf and so on.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { groundingTables, photographTable } from './real-vlm/tables.mjs';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DOCS = join(ROOT, 'docs', 'results', 'runs');
const INDEX = join(ROOT, 'docs', 'results', 'experiments.md');
const MARKS = ['<!-- runs: made by scripts/results.mjs -->', '<!-- end of runs -->'];
// The layer is the one that smollm2-main chooses on validation items.
const SMALL = ['seeds=[1]', 'test=10', 'prompts=10', 'layers=[22]'];
const REAL = 'gemma-3-270m-xpatch';
const REAL_LAYER = ['layers=[11]'];
const PHOTOGRAPHS = 'real-photographs.yaml';
const ENCODER = 'models/demo/mmproj-xpatch-demo-f16.gguf';

/** Name; preset, or another command that is a run; model; settings or, with dashes, options; figures to keep. */
const RUNS = [
  ['demo-main', 'main', 'demo', [], ['layer-sweep-mean']],
  ['demo-modalities', 'modalities', 'demo', [], []],
  ['demo-llm-to-vlm', 'llm-to-vlm', 'demo', ['vectorModel=demo-base'], ['cosine-layers']],
  ['demo-instruction', 'instruction', 'demo', [], ['examples-curve']],
  ['demo-layer-sweep', 'layer-sweep', 'demo', [], ['test-layers-mean']],
  ['demo-task-conflict', 'task-conflict', 'demo', [], []],
  ['demo-image-to-text', 'image-to-text', 'demo', [], []],
  ['demo-template', 'docs/results/template.yaml', 'demo', [], []],
  ['demo-vqa', 'vqa', 'demo', ['tasks=[./food-questions.json]'], []],
  ['demo-quantisation-q8_0', 'quantisation', 'demo', ['vectorModel=demo-q8_0.gguf'], []],
  ['demo-quantisation-q4_0', 'quantisation', 'demo', ['vectorModel=demo-q4_0.gguf'], []],
  ['demo-q4_0-quantisation', 'quantisation', 'demo-q4_0.gguf', ['vectorModel=demo'], []],
  ['demo-function-vectors', 'function-vectors', 'demo', ['seeds=[1]'], ['layer-sweep-mean']],
  ['demo-function-layers', 'function-vectors', 'demo', ['seeds=[1]', 'layers=all'], ['test-layers-mean']],
  ['demo-strength', 'strength', 'demo', ['seeds=[1]'], ['strength-curve']],
  ['demo-heads', 'circuit heads', 'demo', [], ['knock-out']],
  ['demo-compute', 'compute', 'demo', [], []],
  ['smollm2-main', 'main', 'smollm2', ['seeds=[1]', 'test=20'], ['layer-sweep-mean']],
  ['smollm2-modalities', 'modalities', 'smollm2', SMALL, []],
  ['smollm2-instruction', 'instruction', 'smollm2', [...SMALL, 'tasks=[country-capital,animal-latin,food-color]'], []],
  [
    'smollm2-layer-sweep',
    'layer-sweep',
    'smollm2',
    ['seeds=[1]', 'test=6', 'prompts=10', 'layers=[6,14,18,22,26,29]'],
    [],
  ],
  ['smollm2-task-conflict', 'task-conflict', 'smollm2', SMALL, []],
  ['smollm2-template', 'template', 'smollm2', ['seeds=[1]', 'test=10', 'layers=[22]'], []],
  ['smollm2-quantisation-q8_0', 'quantisation', 'smollm2-f16.gguf', [...SMALL, 'vectorModel=smollm2-q8_0.gguf'], []],
  ['smollm2-quantisation-q4_k', 'quantisation', 'smollm2-f16.gguf', [...SMALL, 'vectorModel=smollm2-q4_k.gguf'], []],
  ['smollm2-compute', 'compute', 'smollm2', [], []],
  ['real-main', 'main', REAL, REAL_LAYER, []],
  ['real-modalities', 'modalities', REAL, REAL_LAYER, []],
  ['real-instruction', 'instruction', REAL, REAL_LAYER, []],
  ['real-layer-sweep', 'layer-sweep', REAL, [], ['test-layers-mean']],
  ['real-task-conflict', 'task-conflict', REAL, REAL_LAYER, []],
  ['real-template', 'main', REAL, [...REAL_LAYER, 'template=paper'], []],
  ['real-quantisation', 'quantisation', REAL, [...REAL_LAYER, 'vectorModel=gemma-q4_0.gguf'], []],
  ['real-photographs', PHOTOGRAPHS, REAL, [], []],
  ['real-noto', 'main', REAL, [...REAL_LAYER, 'style=noto'], []],
  [
    'real-strength',
    'strength',
    REAL,
    ['seeds=[1]', 'layers=[6,9,11]', 'prompts=10', 'test=20', 'tasks=[country-capital,food-color]'],
    ['strength-curve'],
  ],
  ['real-heads', 'circuit heads', REAL, ['--prompts 20'], ['knock-out']],
  ['real-compute', 'compute', REAL, [], []],
  ['real-decode', 'decode', REAL, ['--layers 10,11,12,14,16', '--seeds 1,2,3'], []],
  ['real-evolution', 'evolution', REAL, ['--seeds 1,2,3'], []],
  ['real-embed', 'embed', REAL, ['--layers 12', '--seeds 1,2,3'], []],
];
/** Tables first, in this order, then the others by name. */
const ORDER = [
  'strict',
  'lenient',
  'probability',
  'matrix-',
  'conflict-',
  'noisy-',
  'compute',
  'divergence',
  'cosine',
  'overlap',
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    smollm2: { type: 'string' },
    quantised: { type: 'string' },
    only: { type: 'string' },
    stamps: { type: 'string' },
    check: { type: 'boolean' },
  },
});
const [out] = positionals;
if (out === undefined) throw new Error('Name a folder for the runs.');
mkdirSync(out, { recursive: true });
const only = values.only?.split(',');

const asked = RUNS.filter(([name]) => only?.some((start) => name.startsWith(start)) ?? true);
for (const [name, preset, model, settings] of asked) {
  if (model === 'smollm2' && !values.smollm2) continue;
  if ([model, ...settings].some((text) => text.endsWith('.gguf')) && !values.quantised) continue;
  if (preset === PHOTOGRAPHS && !values.stamps) continue;
  if (preset === 'vqa') importQuestions();
  if (preset === PHOTOGRAPHS) run([join(ROOT, 'scripts', 'real-vlm', 'photographs.mjs'), resolve(values.stamps), '.']);
  const real = settings.map((text) =>
    text.replace(/=([^=]*\.gguf)$/, (_, file) => `=${resolve(values.quantised, file)}`),
  );
  if (preset === 'compute' && existsSync(join(out, name))) continue;
  const experiment = preset.startsWith('docs/') ? join(ROOT, preset) : preset;
  xpatch([...callOf(experiment), '-m', ...sourceOf(model), '--threads', '1', ...real.flatMap(wordsOf), '-o', name]);
}
if (values.check) checkDocuments();
else writeDocuments();

/** A preset of `eval`, or a command that is a run too. */
function callOf(preset) {
  return /^(circuit |decode$|evolution$|embed$)/.test(preset) ? preset.split(' ') : ['eval', preset];
}

/** Words of the command line. */
function wordsOf(setting) {
  return setting.startsWith('--') ? setting.split(' ') : ['--set', setting];
}

function sourceOf(model) {
  if (model === 'demo' || model === REAL) return [model];
  if (model === 'smollm2') return [resolve(values.smollm2)];
  const file = resolve(values.quantised, model);
  return model.startsWith('demo') ? [file, '--mmproj', join(ROOT, ENCODER)] : [file];
}

/** A folder of pictures, questions and answers: the shipped foods, asked two questions. */
function importQuestions() {
  if (existsSync(join(out, 'food-questions.json'))) return;
  const options = { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] };
  const { stdout } = spawnSync('npx', ['tsx', join('examples', 'question-file.ts')], options);
  writeFileSync(join(out, 'questions.json'), stdout);
  const images = join(ROOT, 'data', 'images', 'twemoji');
  const question = 'What is the color of the food?';
  xpatch([
    'data',
    'import',
    'questions.json',
    '--images-root',
    images,
    '--question',
    question,
    '-o',
    'food-questions.json',
  ]);
}

function xpatch(args) {
  run([join(ROOT, 'dist', 'cli', 'main.js'), ...args]);
}

function run(args) {
  const { status } = spawnSync(process.execPath, args, { cwd: out, stdio: 'inherit' });
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}`);
}

/** One page a run with its tables and figures, and a row in the index, where those of runs that are not in this folder stay. */
function writeDocuments() {
  const text = readFileSync(INDEX, 'utf8');
  const [start, end] = MARKS.map((mark) => text.indexOf(mark));
  const before = text.slice(start, end).split('\n');
  const rows = [];
  for (const [name, preset, model, settings, figures] of RUNS) {
    const folder = join(out, name);
    const manifest = finished(folder);
    if (manifest === undefined) {
      rows.push(...before.filter((row) => row.startsWith(`| [${name}]`)));
      continue;
    }
    const command = commandOf(preset, model, settings);
    const { hash, name: modelName } = manifest.model;
    const seeds = [manifest.options.seeds ?? manifest.options.seed].flat().join(', ');
    const tables = tablesOf(folder);
    const common = new Set(notesOf(tables[0]).filter((note) => manifest.notes?.includes(note.slice(2))));
    const parts = [
      `# ${manifest.title}`,
      `\`\`\`sh\n${command}\n\`\`\``,
      `${timeOf(manifest)}. Seeds: ${seeds}. ${modelName}, SHA-256 \`${hash.slice(0, 12)}\`; llama.cpp ${manifest.llamaCpp}, CPU, one thread.${templateOf(manifest)}`,
      [...common].join('\n'),
      ...figures.map((figure) => {
        cpSync(join(folder, 'figures', `${figure}.png`), join(DOCS, `${name}-${figure}.png`));
        return `![${figure.replaceAll('-', ' ')}](${name}-${figure}.png)`;
      }),
      ...tables.map((text) => linesOf(text, (line) => !common.has(line))),
      ownTables(name),
    ];
    writeFileSync(join(DOCS, `${name}.md`), `${parts.filter((part) => part !== '').join('\n\n')}\n`);
    const lines = callOf(preset)[0] === 'eval' && preset !== 'compute' ? manifest.lines : ''; // other runs have parts of work
    rows.push(`| [${name}](runs/${name}.md) | \`${command}\` | ${seeds} | ${lines} | ${timeOf(manifest)} |`);
  }
  const head = ['| Run | Command | Seeds | Scored queries | When, how long |', '| --- | --- | --- | ---: | --- |'];
  writeFileSync(
    INDEX,
    `${text.slice(0, start + MARKS[0].length)}\n${[...head, ...rows].join('\n')}\n${text.slice(end)}`,
  );
}

/** Of a run whose prompts are not in the paper's template. */
function templateOf({ study, notes = [] }) {
  const note = study && notes.find((text) => text.startsWith('Prompts are written'));
  return note ? ` ${note}` : '';
}

/** The manifest of a complete run. */
function finished(folder) {
  const file = join(folder, 'manifest.json');
  const manifest = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
  return manifest?.status === 'complete' ? manifest : undefined;
}

/** What of the real model no run has in its own tables. */
function ownTables(name) {
  if (name === 'real-photographs') return photographTable(join(out, name));
  if (name !== 'real-main') return '';
  const names = join(out, 'real-names.json');
  if (!existsSync(names)) {
    const stamps = values.stamps ? ['--stamps', values.stamps] : [];
    run([join(ROOT, 'scripts', 'real-vlm', 'naming.mjs'), 'real-names.json', ...stamps]);
  }
  return groundingTables(join(out, name), names);
}

/** Compares the numbers of complete runs with the intervals on their pages. */
function checkDocuments() {
  let outside = 0;
  for (const [name] of asked) {
    const page = join(DOCS, `${name}.md`);
    if (!finished(join(out, name)) || !existsSync(page)) {
      console.log(`${name}: ${existsSync(page) ? 'no complete run' : 'no page'} to compare`);
      continue;
    }
    const committed = cellsOf(readFileSync(page, 'utf8'));
    const now = cellsOf([...tablesOf(join(out, name)), ownTables(name)].join('\n\n'));
    const wrong = [...committed].filter(([key, { low, high }]) => {
      const value = now.get(key)?.value;
      return value === undefined || value < low || value > high;
    });
    outside += wrong.length;
    console.log(`${name}: ${committed.size - wrong.length} of ${committed.size} numbers within their intervals`);
    for (const [key, { value, low, high }] of wrong) {
      console.log(`  ${key}: ${now.get(key)?.value ?? 'missing'}, not ${value} [${low}, ${high}]`);
    }
  }
  process.exitCode = outside > 0 ? 1 : 0;
}

/** Every `0.50 [0.47, 0.54]` of the tables of a text, by table, row and column. */
function cellsOf(text) {
  const cells = new Map();
  let [title, heads] = ['', []];
  for (const line of text.split('\n')) {
    if (/^\*\*.*\*\*$/.test(line)) [title, heads] = [line.replaceAll('*', ''), []];
    if (!line.startsWith('|')) continue;
    const row = line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim());
    if (heads.length === 0) heads = row;
    for (const [i, cell] of row.entries()) {
      const [, ...numbers] = /^([-\d.]+) \[([-\d.]+), ([-\d.]+)\]$/.exec(cell.replaceAll('−', '-')) ?? [];
      if (numbers.length === 0) continue;
      const [value, low, high] = numbers.map(Number);
      cells.set(`${title}, ${row[0]}, ${heads[i]}`, { value, low, high });
    }
  }
  return cells;
}

/** In Markdown: those that ORDER names, then the others. Worked examples are on the page of the run. */
function tablesOf(folder) {
  const names = readdirSync(join(folder, 'tables'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => file.slice(0, -3))
    .filter((name) => name !== 'examples' && name !== 'differences-probability');
  const rank = (name) => ORDER.findIndex((start) => name.startsWith(start)) + 1 || ORDER.length + 1;
  return names
    .sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1))
    .map((name) => readFileSync(join(folder, 'tables', `${name}.md`), 'utf8').trim());
}

function notesOf(text = '') {
  return text.split('\n').filter((line) => line.startsWith('- '));
}

function linesOf(text, keep) {
  return text.split('\n').filter(keep).join('\n');
}

function commandOf(preset, model, settings) {
  const sources = { demo: 'demo', smollm2: 'SmolLM2-135M-Instruct.Q4_1.gguf' };
  const source = sources[model] ?? (model.startsWith('demo') ? `${model} --mmproj ${ENCODER}` : model);
  // zsh takes brackets for a pattern of file names.
  const quoted = settings.flatMap(wordsOf).map((word) => (/\[/.test(word) ? `"${word}"` : word));
  return ['xpatch', ...callOf(preset), '-m', source, ...quoted].join(' ');
}

/** Day, and minutes of work: of a run that was stopped between, the last process' alone are known; of a merged one, its parts are. */
function timeOf({ started, finished, sessions = [], shards }) {
  if (shards) return `${started.slice(0, 10)}, ${shards.length} shards`;
  const minutes = (Date.parse(finished) - Date.parse(sessions.at(-1)?.started ?? started)) / 60_000;
  const stopped = sessions.length > 1 ? `, the last of ${sessions.length} processes` : '';
  return `${started.slice(0, 10)}, ${minutes < 2 ? `${Math.round(minutes * 60)} s` : `${Math.round(minutes)} min`}${stopped}`;
}
