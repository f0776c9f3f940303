import { setTimeout as wait } from 'node:timers/promises';
import { addressOf, Broker } from '../experiment/queue/broker.js';
import type { QueuedModel, QueuedRun } from '../experiment/queue/protocol.js';
import { runsIn, workOn } from '../experiment/queue/work.js';
import { checkTasks, findTask } from '../experiment/verify.js';
import type { Context } from '../model/context.js';
import type { Model } from '../model/model.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { defineCommand } from './command.js';
import { fetchEvents, openModel } from './common.js';
import { type ArgumentsOf, grouped, text, vary, whole } from './option.js';
import { DATA_FOLDER, DEVICE_OPTIONS, OUTPUT_OPTIONS } from './options.js';
import type { Terminal } from './terminal.js';

const OPTIONS = {
  ...grouped('Work', {
    data: vary(DATA_FOLDER, { default: '.' }),
    vectorModel: text('File of the model of foreign vectors, if a run uses them', {
      value: 'FILE',
      completes: 'file',
    }),
    idle: whole(1, 'End after this many seconds without a run. Defaults to never'),
  }),
  ...DEVICE_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type WorkArguments = ArgumentsOf<typeof OPTIONS>;

/** Between two checks for a run. */
const LOOK_MS = 1000;

/** `xpatch work`: answers what `xpatch eval --queue` hands out. */
export const work = defineCommand({
  command: 'work <queue>',
  describe: 'Answer queries from eval --queue with a model on this machine',
  positionals: { queue: vary(text('redis://HOST:PORT, as given to eval'), { required: true }) },
  options: OPTIONS,
  examples: [
    ['On each machine', 'work redis://10.0.0.7 -m demo'],
    ['With a password and TLS', 'work rediss://:PASSWORD@big.example:6380 -m llava-1.5-7b'],
    ['The run, on any of them', 'eval main -m demo --queue redis://10.0.0.7'],
  ],
  run: async (args, terminal) => {
    const { signal } = terminal;
    using progress = terminal.progress(args);
    using broker = await Broker.open(args.queue);
    /** Runs that this machine cannot work on, unless they are started again with other demands. */
    const refused = new Set<string>();
    const keyOf = ({ id, kernels }: QueuedRun) => `${id} ${kernels}`;
    const done: { run: string; batches: number }[] = [];
    terminal.explainInterrupt('The current batch was answered; others continue with the rest.');
    for (let seen = Date.now(); !signal.aborted; ) {
      const run = (await runsIn(broker)).find((one) => !refused.has(keyOf(one)));
      if (run === undefined) {
        if (args.idle !== undefined && Date.now() - seen > 1000 * args.idle) break;
        progress.update(`waiting for a run at ${addressOf(args.queue)}`);
        await wait(LOOK_MS, undefined, { signal }).catch(() => undefined);
        continue;
      }
      try {
        done.push({ run: run.title, batches: await answer(broker, run, args, terminal, progress) });
      } catch (error) {
        if (!(error instanceof XpatchError) || error.code === 'ABORTED') throw error;
        refused.add(keyOf(run));
        terminal.say(`xpatch: ${run.title} is left to others: ${error.code}: ${error.message}\n`);
      }
      seen = Date.now();
    }
    progress.done();
    if (args.json) terminal.printJson({ done, refused: refused.size });
    else for (const { run, batches } of done) terminal.print(`${run}: ${counted(batches, 'batch', 'batches')}\n`);
  },
});

type Line = ReturnType<Terminal['progress']>;

/** Works on one run until it is complete. @returns how many batches */
async function answer(
  broker: Broker,
  run: QueuedRun,
  args: WorkArguments,
  terminal: Terminal,
  progress: Line,
): Promise<number> {
  const { signal } = terminal;
  const sources = run.experiment.tasks.map((source) => findTask(source, args.data));
  const tasks = await checkTasks({ options: run.experiment, tasks: run.tasks }, sources, signal);
  if (tasks.state !== 'ok') throw new XpatchError('RUN_MISMATCH', tasks.detail);
  const open = async (name: string, wanted: QueuedModel, mmproj?: string) => {
    const files = { ...args, model: name, mmproj, imageWidth: wanted.imageWidth };
    const model = await openModel(files, fetchEvents(terminal, progress));
    const same = model.identity.hash === wanted.hash && model.projectorHash === wanted.mmproj;
    if (same) return model;
    await model.dispose();
    const problem = `it uses ${wanted.name || wanted.architecture}, sha256 ${wanted.hash.slice(0, 12)}`;
    throw new XpatchError('RUN_MISMATCH', `${problem}, and ${name}, or its picture encoder, has other bytes.`);
  };
  await using model = await open(args.model, run.model, args.mmproj);
  const { vectorModel = run.experiment.vectorModel } = args;
  await using foreign = run.vectorModel && vectorModel ? await open(vectorModel, run.vectorModel) : undefined;
  const contextOf = (some: Model): Promise<Context> => some.createContext({ ...run.context, threads: undefined });
  const show = (batches: number) =>
    progress.update(`answering ${run.title}`, undefined, counted(batches, 'batch', 'batches'));
  show(0);
  return await workOn(broker, run, {
    context: await contextOf(model),
    foreign: foreign && (await contextOf(foreign)),
    experiment: { ...run.experiment, tasks: sources },
    signal,
    onWork: show,
  });
}
