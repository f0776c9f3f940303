import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type LoadedExperiment, loadExperiment } from '../experiment/config.js';
import { MANIFEST_FILE, readManifest } from '../experiment/manifest.js';
import { PRESETS } from '../experiment/presets.js';
import { requireServer } from '../experiment/queue/broker.js';
import { requireRunFolder } from '../experiment/run-folder.js';
import { findEntry } from '../hub/catalogue.js';
import { tableToText } from '../report/tables.js';
import { XpatchError } from '../util/errors.js';
import { defineCommand } from './command.js';
import { usageError } from './errors.js';
import { PART_OPTIONS, partsOf } from './eval-parts.js';
import type { EvalResult } from './eval-protocol.js';
import { type PlanResult, runEval } from './eval-run.js';
import { summaryOf } from './eval-summary.js';
import { readTemplate, requireTasks } from './experiment.js';
import { type ArgumentsOf, flag, grouped, several, text, vary, whole } from './option.js';
import {
  LAYERS,
  MODEL,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  RUN_FOLDER,
  SEEDS,
  STYLE,
  TASKS,
  TEMPLATE,
  THREADS,
} from './options.js';
import { commandWith, timestamp } from './report-run.js';
import { duration } from './run-rate.js';
import type { Terminal } from './terminal.js';

export const EVAL_OPTIONS = {
  ...grouped('Experiment', {
    tasks: vary(TASKS, {
      describe: "Shipped tasks, or task files (.json, .jsonl, .csv), separated by commas. Defaults to the preset's",
    }),
    seeds: vary(SEEDS, { describe: "Each draws its own items and examples. Defaults to the preset's" }),
    layers: vary(LAYERS, { describe: 'Where the test patches. Defaults to the best layer on validation items' }),
    style: STYLE,
    template: TEMPLATE,
    test: whole(1, 'Maximum number of test queries per task and seed. Defaults to 100'),
    set: several('A field of the config, such as seeds=[1,2] or conditions.2.prompts=5', { value: 'FIELD=VALUE' }),
    plan: flag('Print what would run and how long it would take, and stop'),
    memory: text('Memory that contexts may take in addition to the weights, such as 2G or 500M', { value: 'BYTES' }),
    output: vary(RUN_FOLDER, {
      describe: 'Folder of the run; an existing run is resumed. Defaults to xpatch-eval-NAME-DATE-TIME here',
    }),
    resume: flag('Resume the run in the folder of --output; --no-resume refuses an existing one', { default: true }),
  }),
  ...PART_OPTIONS,
  ...MODEL_OPTIONS,
  model: vary(MODEL, { group: 'Model' }),
  threads: vary(THREADS, { describe: 'CPU cores to use. Defaults to all, at most 8', group: 'Model' }),
  ...OUTPUT_OPTIONS,
};
export type EvalArguments = ArgumentsOf<typeof EVAL_OPTIONS>;

/** `xpatch eval`: an experiment from a preset or a config file. */
export const evaluate = defineCommand({
  command: 'eval [experiment]',
  describe: 'Run an experiment: a preset or a config file; without one, list the presets',
  positionals: { experiment: text('Preset, or a config file in YAML or JSON', { completes: 'preset' }) },
  options: {
    ...EVAL_OPTIONS,
    json: vary(OUTPUT_OPTIONS.json, {
      describe: 'Print JSON, one object per line: every event of a run, then the result or the error',
    }),
  },
  examples: [
    ['The presets', 'eval'],
    ["The paper's main table", 'eval main -m demo'],
    ['Smaller', 'eval main -m demo --seeds 1 --test 20'],
    ['What your own config file would take', 'eval mine.yaml -m llava-1.5-7b --plan'],
    ['Resume a run that was stopped', 'eval main -m demo -o RUN'],
    ['On other machines, where `xpatch work` runs', 'eval main -m demo --queue redis://10.0.0.7'],
  ],
  run: async (given, terminal) => {
    const { experiment, model = terminal.io.env.XPATCH_MODEL, ...args } = given;
    if (experiment === undefined) listPresets(terminal, args.json);
    else await runEvaluation(experiment, { ...args, model }, terminal);
  },
});

export interface Evaluation {
  /** Part of the folder's name. Defaults to `eval-` and the name of the experiment. */
  readonly name?: string;
  /** `--json` prints one object at the end, with what the demo shows. Defaults to false. */
  readonly whole?: boolean;
  readonly adapt?: (loaded: LoadedExperiment) => LoadedExperiment;
}

/** Runs the experiment that the arguments name, or plans it, and prints what came out. */
export async function runEvaluation(
  source: string,
  args: EvalArguments,
  terminal: Terminal,
  { name, whole = false, adapt = (loaded) => loaded }: Evaluation = {},
): Promise<void> {
  const { model } = args;
  if (!model)
    throw usageError('Name a model with -m: a GGUF file, a name that `xpatch models list` shows, or hf:USER/REPO.');
  if (args.output === '') throw usageError('--output is empty: name a folder.');
  if (args.plan && args.output !== undefined) throw usageError('--plan writes nothing: leave out --output.');
  if (!args.resume && args.output !== undefined && existsSync(join(args.output, MANIFEST_FILE))) {
    const message = `${args.output} already holds a run. Name another folder, or leave out --no-resume to resume it.`;
    throw new XpatchError('FILE_WRITE', message);
  }
  const settings = [...(await settingsOf(args)), ...(args.set ?? [])];
  const loaded = adapt(await loadExperiment(source, settings, findEntry(model)));
  if (loaded.experiment.measure === 'compute' && (args.plan || args.shard !== undefined)) {
    throw usageError('compute is a measurement of this machine: it has no plan and no shards. Run it as it is.');
  }
  const memory = args.memory === undefined ? undefined : parseBytes(args.memory);
  const parts = partsOf(args, loaded.experiment);
  const stem = name ?? `eval-${loaded.experiment.name}`;
  const folder = args.plan ? undefined : (args.output ?? `xpatch-${stem}-${timestamp()}`);
  if (folder !== undefined) await requireRunFolder(folder);
  if (parts.queue && folder !== undefined && (await readManifest(folder))?.status !== 'complete') {
    using line = terminal.progress(args);
    line.update('connecting to the queue');
    await requireServer(parts.queue.url);
  }
  const command = commandWith(terminal, folder);
  const work = { loaded, folder, memory, ...parts, command, events: !whole };
  const result = await runEval({ ...args, model }, terminal, work);
  if ('plan' in result) printPlan(terminal, result, args.json);
  else if (!args.json) printResult(terminal, result);
  else if (whole) printWhole(terminal, result);
  else {
    const { introduction, bars, caveats, ...done } = result;
    terminal.printJson({ event: 'done', ...done });
  }
}

/** The options that are also fields of a config, as `--set` takes them. */
async function settingsOf({ template: typed, tasks, seeds, layers, style, test }: EvalArguments): Promise<string[]> {
  const template = typed === undefined ? undefined : readTemplate(typed);
  const fields = { tasks: tasks && (await requireTasks(tasks)), seeds, layers, style, template, test };
  return Object.entries(fields).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${JSON.stringify(value)}`],
  );
}

function listPresets(terminal: Terminal, json: boolean): void {
  const presets = Object.entries(PRESETS).map(([name, { title, shows }]) => ({ name, title, shows }));
  if (json) {
    terminal.printJson({ presets });
    return;
  }
  const width = Math.max(...presets.map(({ name }) => name.length));
  const lines = presets.map(({ name, shows }) => `  ${name.padEnd(width)}  ${shows}`);
  terminal.print(
    `Presets of xpatch eval:\n${lines.join('\n')}\n\nRun one with \`xpatch eval NAME -m MODEL\`; --plan shows the cost.\n`,
  );
}

function printPlan(terminal: Terminal, { plan, experiment, estimate, notes }: PlanResult, json: boolean): void {
  if (json) {
    terminal.printJson({ event: 'plan', plan, experiment, estimate, notes });
    return;
  }
  const { queries, vectors, pictures, passes, tokens, newTokens, longest, warnings, model } = plan;
  const width = Math.max(...queries.map(({ condition }) => condition.length), 9);
  const rows = queries.map(
    ({ stage, condition, count }) => `  ${stage.padEnd(10)}  ${condition.padEnd(width)}  ${String(count).padStart(8)}`,
  );
  const total = queries.reduce((sum, { count }) => sum + count, 0);
  const speed = `${estimate.positionsPerSecond.toFixed(0)} positions and ${estimate.newTokensPerSecond.toFixed(0)} new tokens per second`;
  const { parallel } = estimate;
  const encoding =
    estimate.secondsPerPicture === undefined ? '' : `, ${estimate.secondsPerPicture.toFixed(2)} s per picture`;
  const lines = [
    `${experiment.title}, on ${model.name || model.architecture}`,
    `  ${'stage'.padEnd(10)}  ${'condition'.padEnd(width)}  ${'queries'.padStart(8)}`,
    ...rows,
    `Queries ${total}, vectors ${vectors}, pictures ${pictures}. The progress of a run counts the prompts of its vectors too.`,
    `Passes over prompts about ${passes}: one per vector, one per batch of items.`,
    `Positions to decode ${tokens}, shared ones counted once; new tokens at most ${newTokens}; longest prompt ${longest}.`,
    `Time about ${duration(estimate.seconds)}: an estimate from ${speed}${encoding}, measured just now${parallel > 1 ? `, and ${parallel} items at a time` : ''}.`,
    `Disk about ${(estimate.disk / 1e6).toFixed(1)} MB, without the report.`,
    ...warnings.map((text) => `Warning: ${text}`),
  ];
  terminal.print(`${lines.join('\n')}\n`);
}

function printResult(terminal: Terminal, result: EvalResult): void {
  if (result.report === undefined) {
    terminal.print(`Answers: ${result.folder}. Once you have all shards: xpatch merge FOLDERS -o RUN\n`);
    return;
  }
  if (result.bars) {
    terminal.print(summaryOf(result, Math.max(60, Math.min(100, terminal.out.columns ?? 80))));
    return;
  }
  const main = result.tables.filter(({ name }) => name === 'lenient' || name === 'strict');
  const shown = main.length > 0 ? main : result.tables;
  const more = result.tables.filter((table) => !shown.includes(table)).map(({ name }) => name);
  const texts = shown.map(({ table }) => `${tableToText(table, terminal)}\n`);
  const others = more.length > 0 ? `More tables: ${more.join(', ')} in ${join(result.folder, 'tables')}\n` : '';
  terminal.print(`${texts.join('')}${others}Report: ${result.report}\n`);
}

function printWhole(
  terminal: Terminal,
  { folder, model, experiment, layers, examples, tables: all }: EvalResult,
): void {
  const named = (name: string) => all.filter((table) => table.name === name).map(({ table }) => table);
  const tables = [...named('lenient'), ...named('strict')];
  const [differences] = named('differences-lenient');
  terminal.printJson({ folder, model, options: experiment, layer: layers[0], tables, differences, examples });
}

/** `2G`, `500M`, `1048576`: K, M and G are powers of 1024. */
function parseBytes(text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?$/i.exec(text.trim()) ?? [];
  const bytes = Number(number) * 1024 ** ' kmg'.indexOf((unit || ' ').toLowerCase());
  if (number !== undefined && bytes >= 1 << 20) return Math.floor(bytes);
  throw usageError(`--memory takes at least 1M, as 2G, 500M or a number of bytes, not ${JSON.stringify(text)}.`);
}
