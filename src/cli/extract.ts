import type { ReadPosition, TaskSpec } from '../tasks/prompts.js';
import { splitTask } from '../tasks/split.js';
import { loadTask, type Task } from '../tasks/task.js';
import { extractTaskVector } from '../vectors/extract.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  requireNotAborted,
  withSession,
} from './common.js';
import { usageError } from './errors.js';
import { textOption, wholeOption } from './options.js';
import { openOutput } from './output-file.js';

interface ExtractArguments extends ModelArguments, OutputArguments {
  task: string;
  spec: TaskSpec;
  shots?: number;
  prompts?: number;
  seed: number;
  readPosition?: ReadPosition;
  imagesRoot?: string;
  instruction?: string;
  output: string;
}

/** The paper's number of validation items; prompts draw their examples from them. */
const VALIDATION_ITEMS = 30;

/** `xpatch extract`: a task vector into a safetensors file. */
export const extract = defineCommand<ExtractArguments>({
  command: 'extract',
  describe: 'Make a task vector from text examples, image examples or an instruction',
  options: (yargs) =>
    outputOptions(modelOptions(yargs))
      .option('task', textOption('task', 'Shipped task, or a JSON file of input and output', { demandOption: true }))
      .option('spec', {
        ...textOption('spec', 'What tells the model the task', { demandOption: true }),
        choices: ['text', 'image', 'instruction'] as const,
      })
      .option('shots', wholeOption('shots', 1, 'Examples in a prompt. Defaults to 5'))
      .option('prompts', wholeOption('prompts', 1, 'Prompts whose mean is taken. Defaults to 30'))
      .option('seed', wholeOption('seed', 0, 'Seed of the validation items and the examples', { default: 1 }))
      .option('read-position', {
        ...textOption(
          'read-position',
          'Which A: is read: before the last answer, or of a query after it. Defaults to last-example',
        ),
        choices: ['last-example', 'dummy-query'] as const,
      })
      .option('images-root', textOption('images-root', "Folder of a task file's pictures. Defaults to the file's own"))
      .option('instruction', textOption('instruction', 'Instruction for a task file, ending in a colon'))
      .group(['task', 'spec', 'shots', 'prompts', 'seed', 'read-position', 'images-root', 'instruction'], 'Task:')
      .option('output', textOption('output', 'File to write', { alias: 'o', demandOption: true })),
  examples: [
    ['From 30 prompts of text', 'extract -m demo --task country-capital --spec text -o capital.safetensors'],
    ['From the instruction', 'extract -m demo --task country-capital --spec instruction -o i.safetensors'],
    ['Your own pictures', 'extract -m vlm.gguf --mmproj p.gguf --task logos.json --spec image -o l.safetensors'],
  ],
  run: async (args, terminal) => {
    checkTaskArguments(args);
    const inputs = [args.model, args.mmproj, args.task];
    await using output = await openOutput(args.output, terminal, { json: args.json, inputs });
    const { spec, seed, prompts = VALIDATION_ITEMS } = args;
    const pictures = spec === 'image';
    const task = await loadTask(args.task, { pictures, imagesRoot: args.imagesRoot, instruction: args.instruction });
    const split = splitTask(task, seed, {
      pictures,
      validation: spec === 'instruction' ? 0 : validationItems(task, prompts),
    });
    await withSession(args, terminal, async ({ model, context, signal, progress, track }) => {
      const readingPrompts = track(pictures ? 'encoding pictures' : 'reading prompts');
      const decoding = track('decoding');
      const vector = await extractTaskVector(context, split, {
        spec,
        shots: args.shots,
        prompts: spec === 'instruction' ? undefined : prompts,
        readPosition: args.readPosition,
        signal,
        onProgress: (p) => (p.stage === 'prompts' ? readingPrompts(p) : decoding(p)),
      });
      requireNotAborted(signal);
      await vector.save(output.path);
      await output.deliver();
      progress.done();
      const { layers, readPosition, origin } = vector.info;
      const { shots, prompts: records } = origin as Extract<typeof origin, { op: 'prompts' }>;
      const shape = [layers.length, model.identity.nEmbd];
      if (args.json) {
        terminal.printJson({
          output: args.output,
          task: { name: task.name, hash: task.hash },
          spec,
          shots,
          prompts: records.length,
          seed,
          readPosition,
          shape,
          norms: vector.norms(),
          model: model.identity,
        });
      } else {
        const source =
          spec === 'instruction'
            ? 'the instruction'
            : `${records.length} ${spec} prompts of ${shots} shots, seed ${seed}`;
        const what = `${task.name} from ${source}, read at ${readPosition}, of ${describeModel(model.identity)}`;
        terminal.print(`${output.name}: task_vector [${shape.join(', ')}] (${what})\n`);
      }
    });
  },
});

/** The paper's 30, fewer only in a task that is smaller and of which fewer prompts are asked for. */
function validationItems(task: Task, prompts: number): number {
  const distinct = new Set(task.items.map((item) => item.input)).size;
  return Math.max(prompts, Math.min(VALIDATION_ITEMS, distinct));
}

/** An option that would have no effect is refused. */
function checkTaskArguments(args: ExtractArguments): void {
  const isFile = /[\\/]|\.json$/.test(args.task);
  const refuse = (name: string, value: unknown, why: string) => {
    if (value !== undefined) throw usageError(`--${name} has no effect here: ${why}. Leave it out.`);
  };
  if (args.spec === 'instruction') {
    for (const [name, value] of [
      ['shots', args.shots],
      ['prompts', args.prompts],
      ['read-position', args.readPosition],
    ] as const) {
      refuse(name, value, 'an instruction is a single prompt without examples');
    }
  } else {
    refuse('instruction', args.instruction, `--spec ${args.spec} shows examples only`);
  }
  if (args.spec !== 'image') refuse('images-root', args.imagesRoot, `--spec ${args.spec} shows no pictures`);
  if (!isFile) {
    refuse('images-root', args.imagesRoot, 'a shipped task has its own pictures');
    refuse('instruction', args.instruction, 'a shipped task has its own instruction');
  }
}
