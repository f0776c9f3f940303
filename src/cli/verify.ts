import { existsSync } from 'node:fs';
import type { ModelRecord } from '../experiment/manifest.js';
import { askAgain, type Check, type CheckedRun, check, checkRun } from '../experiment/verify.js';
import type { ContextOptions } from '../model/context-options.js';
import type { Model } from '../model/model.js';
import { isTaskFile } from '../tasks/task.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { printable } from '../util/printable.js';
import { defineCommand } from './command.js';
import { requireNotAborted, withSession } from './common.js';
import { EXIT, usageError } from './errors.js';
import { type ArgumentsOf, text, vary, whole } from './option.js';
import { DATA_FOLDER, MODEL, MODEL_OPTIONS, OUTPUT_OPTIONS, SEED } from './options.js';
import type { Terminal } from './terminal.js';

const OPTIONS = {
  data: vary(DATA_FOLDER, {
    describe: "Folder of the run's own task files and their pictures. Defaults to the current one",
  }),
  sample: vary(whole(0, 'Queries to ask again; for a study, one part for each 20'), { default: 20 }),
  seed: vary(SEED, { describe: 'Draws the sample', default: 1 }),
  ...MODEL_OPTIONS,
  model: vary(MODEL, {
    describe: 'GGUF file of the model. Defaults to the path that the run recorded',
    group: 'Model',
  }),
  ...OUTPUT_OPTIONS,
};
type VerifyArguments = ArgumentsOf<typeof OPTIONS>;

/** `xpatch verify`: whether a run is complete, agrees with its answers, and a sample of it can be answered again. */
export const verify = defineCommand({
  command: 'verify <run>',
  describe: 'Check a run: files, tables, and a sample of answers asked again',
  positionals: { run: vary(text('Folder of the run', { completes: 'folder' }), { required: true }) },
  options: OPTIONS,
  examples: [
    ['Everything', 'verify xpatch-eval-main-20261123-081500'],
    ['On another machine', 'verify run -m models/llava.gguf --mmproj models/mmproj.gguf'],
    ['With your own task files', 'verify run --data tasks'],
    ['Only the files', 'verify run --sample 0'],
  ],
  run: async (args, terminal) => {
    const { signal } = terminal;
    using progress = terminal.progress(args);
    progress.update('checking the files');
    const run = await checkRun(args.run, { data: args.data, signal });
    requireNotAborted(signal);
    if (args.data !== undefined && !run.tasks.some(isTaskFile)) {
      throw usageError('--data has no effect: all tasks of this run are shipped. Leave it out.');
    }
    progress.update('remaking the tables');
    // Not imported at the top: it loads sharp, and doctor must start where that does not work.
    const { checkTables } = await import('../report/experiment/run.js');
    const tables = await checkTables(run, signal).catch((error: unknown) => failed('tables', error));
    requireNotAborted(signal);
    progress.done();
    const checks = [...run.checks, tables, ...(await checkAnswers(args, terminal, run))];
    const bad = checks.filter(({ state }) => state === 'failed').length;
    if (args.json) terminal.printJson({ run: args.run, ok: bad === 0, checks });
    else terminal.print(`${checks.map(format).join('')}${summary(checks)}\n`);
    if (bad > 0) terminal.exitCode = EXIT.failed;
  },
});

/** What depends on the model: that it is the same, and answers the same. */
async function checkAnswers(args: VerifyArguments, terminal: Terminal, run: CheckedRun): Promise<Check[]> {
  const { model: recorded, context: sizes } = run.manifest;
  const notDone = (detail: string): Check[] => [{ name: 'model', state: 'not done', detail }];
  if (args.sample === 0) return notDone('--sample 0 leaves out the model');
  const path = args.model || recorded.files.model;
  if (!args.model && !existsSync(path)) return notDone(`${path} is not there: name the model with --model`);
  const { nCtx, nUbatch, flashAttention } = (sizes ?? {}) as ContextOptions;
  const mmproj = args.mmproj ?? (args.model ? undefined : recorded.files.mmproj);
  const { imageWidth } = recorded;
  const options = { nCtx, nUbatch, flashAttention, imageWidth, ...defined(args), model: path, mmproj };
  return withSession(options, terminal, async ({ model, context, signal, track }) => {
    const checks = [checkModel(model, recorded)];
    const { status } = run.manifest;
    const asking = (detail: string): Check[] => [...checks, { name: 'answers', state: 'not done', detail }];
    const unfit = [...run.checks, ...checks].find(({ state }) => state === 'failed');
    if (unfit !== undefined || status !== 'complete') {
      return asking(`only a complete run can be asked again: see ${unfit?.name ?? 'manifest'}`);
    }
    const undone = run.checks.find(({ state }) => state === 'not done');
    if (undone !== undefined) return asking(`that needs the run's own tasks: see ${undone.name}`);
    const again = run.manifest.study === undefined ? askAgain : (await import('../report/run-study.js')).repeatUnits;
    const { sample, seed } = args;
    const answers = await again(context, run, { sample, seed, signal, onProgress: track('asking again') }).catch(
      (error: unknown) => {
        if (signal.aborted) throw error;
        return failed('answers', error);
      },
    );
    return [...checks, answers];
  });
}

function checkModel({ identity, projectorHash }: Model, recorded: ModelRecord): Check {
  const problems: string[] = [];
  if (identity.hash !== recorded.hash)
    problems.push(`it is ${identity.name}, not the file of the run (${recorded.name})`);
  if (projectorHash !== recorded.mmproj) problems.push('its picture encoder is not that of the run');
  return check('model', problems, `${identity.name || identity.architecture}, sha256 ${identity.hash.slice(0, 12)}`);
}

function failed(name: string, error: unknown): Check {
  if (!(error instanceof XpatchError)) throw error;
  return check(name, [`${error.code}: ${error.message}`], '');
}

/** Options that were given. */
function defined<T extends object>(args: T): T {
  return Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined)) as T;
}

function format({ name, state, detail }: Check): string {
  return `${state.padEnd(9)}${name.padEnd(14)}${printable(detail)}\n`;
}

function summary(checks: readonly Check[]): string {
  const count = (state: Check['state']) => checks.filter((entry) => entry.state === state).length;
  const undone = count('not done') > 0 ? `, ${count('not done')} not done` : '';
  return `${counted(count('ok'), 'check')} ok, ${count('failed')} failed${undone}.`;
}
