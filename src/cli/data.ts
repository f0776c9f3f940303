import { basename } from 'node:path';
import type { Argv, CommandModule } from 'yargs';
import type { CheckOptions, TaskCheck } from '../tasks/check.js';
import type { FirstToken } from '../tasks/findings.js';
import { isTaskFile } from '../tasks/task.js';
import { fetchEvents, type OutputArguments, openModel, outputOptions, printJson } from './common.js';
import { EXIT, usageError } from './errors.js';
import { interruptSignal } from './interrupt.js';
import { textOption, withExamples } from './options.js';
import { requireWritable } from './output-file.js';
import { ProgressLine } from './progress.js';

interface CheckArguments extends OutputArguments {
  files: string[];
  model?: string;
  imagesRoot?: string;
  style?: string;
}

interface ImportArguments extends OutputArguments {
  file: string;
  images: string;
  output: string;
  model?: string;
  instruction?: string;
  question?: string;
  domain?: string;
}

const MODEL = textOption('model', 'Model, as elsewhere, whose tokenizer tells which answers begin alike', {
  alias: 'm',
});

const check: CommandModule<unknown, CheckArguments> = {
  command: 'check <files..>',
  describe: 'Find what would stop an experiment on a task or spoil its numbers',
  builder: (yargs) =>
    withExamples(
      outputOptions(yargs)
        .positional('files', {
          type: 'string',
          array: true,
          demandOption: true,
          describe: 'Task files, or shipped tasks by name',
        })
        .option('model', MODEL)
        .option('images-root', textOption('images-root', "Folder that image paths start from. Defaults to the file's"))
        .option('style', textOption('style', 'Drawing style of a shipped task. Defaults to twemoji')),
      [
        ['A task of your own', 'data check capitals.json --images-root flags'],
        ['Shipped tasks, with the answers that a tokenizer begins alike', 'data check food-color animal-latin -m demo'],
      ],
    ) as Argv<unknown> as Argv<CheckArguments>,
  handler: async (args) => {
    const { imagesRoot, style } = args;
    const files = args.files.map(String);
    if (imagesRoot !== undefined && !files.some(isTaskFile))
      throw usageError('--images-root has no effect on shipped tasks.');
    if (style !== undefined && files.every(isTaskFile)) throw usageError('--style has no effect on task files.');
    const checks = await withTokens(args, async (options, progress) => {
      const { checkTask } = await import('../tasks/check.js');
      const done: TaskCheck[] = [];
      for (const file of files) {
        const onProgress = (p: { done: number; total: number }) =>
          progress.update(`checking ${basename(file)}`, p.done / p.total);
        done.push(await checkTask(file, { ...options, imagesRoot, style, onProgress }));
      }
      return done;
    });
    const ok = checks.every(isGood);
    if (args.json) printJson({ ok, checks });
    else process.stdout.write((await Promise.all(checks.map(describe))).join('\n'));
    if (!ok) process.exitCode = EXIT.failed;
  },
};

const importCommand: CommandModule<unknown, ImportArguments> = {
  command: 'import <file>',
  describe: "Make a task file of the paper's data or of picture questions, and check it",
  builder: (yargs) =>
    withExamples(
      outputOptions(yargs)
        .positional('file', {
          type: 'string',
          demandOption: true,
          describe: 'JSON list of input, output, image, or of image, question, answer',
        })
        .option('images', textOption('images', 'Folder that its image paths start from', { demandOption: true }))
        .option('output', textOption('output', 'Task file to write', { alias: 'o', demandOption: true }))
        .option('model', MODEL)
        .option('instruction', textOption('instruction', 'Instruction of the task, ending in a colon'))
        .option('question', textOption('question', 'The task as a question; chooses among those of the file'))
        .option('domain', textOption('domain', 'What the inputs are. Tasks of one domain share their inputs')),
      [
        [
          "The paper's data",
          'data import country_capital.json --images flags --instruction "The capital city of the country:" -o capital.json',
        ],
        [
          'One question about many pictures',
          'data import vqa.json --images photos --question "What animal is this?" -o animals.json',
        ],
      ],
    ) as Argv<unknown> as Argv<ImportArguments>,
  handler: async (args) => {
    const { file, images, output, instruction, question, domain } = args;
    await requireWritable(output, [String(file)]);
    const result = await withTokens(args, async (options, progress) => {
      const { importTask } = await import('../tasks/import.js');
      const fields = { ...(domain !== undefined && { domain }), ...(instruction !== undefined && { instruction }) };
      return importTask(String(file), {
        ...options,
        ...fields,
        ...(question !== undefined && { question }),
        images,
        output,
        onProgress: (p) => progress.update('checking pictures', p.done / p.total),
      });
    });
    if (args.json) printJson({ ok: isGood(result), ...result });
    else process.stdout.write(`${await describe(result)}\nWritten to ${output}\n`);
    if (!isGood(result)) process.exitCode = EXIT.failed;
  },
};

/** `xpatch data`: task files. */
export const data: CommandModule = {
  command: 'data',
  describe: 'Check task files, and import the data of others',
  builder: (yargs) =>
    withExamples(yargs.command([check, importCommand] as unknown as CommandModule[]), [
      ['A task of your own', 'data check capitals.json --images-root flags'],
      ["The paper's data", 'data import country_capital.json --images flags -o capitals.json'],
    ]).demandCommand(1, 'Name a command: check or import.'),
  handler: () => undefined,
};

/** Runs a check with the tokenizer of a model, when one was named. */
async function withTokens<T>(
  { model: source, json, quiet }: OutputArguments & { model?: string },
  work: (options: Pick<CheckOptions, 'firstToken' | 'signal'>, progress: ProgressLine) => Promise<T>,
): Promise<T> {
  const signal = interruptSignal();
  const progress = new ProgressLine(!json && !quiet);
  try {
    if (source === undefined) return await work({ signal }, progress);
    const { tokensAfterDelimiter } = await import('../tasks/token-classes.js');
    await using model = await openModel({ model: source, device: 'cpu' }, fetchEvents(signal, progress));
    const firstToken: FirstToken = (answer) => {
      const [first] = tokensAfterDelimiter(model, answer);
      return first === undefined ? undefined : model.detokenize([first]);
    };
    return await work({ signal, firstToken }, progress);
  } finally {
    progress.done();
  }
}

function isGood({ findings }: TaskCheck): boolean {
  return findings.every(({ level }) => level === 'warning');
}

/** Findings of one kind that are listed in full; --json lists all. */
const LISTED = 5;

async function describe(found: TaskCheck): Promise<string> {
  const { name, items, inputs, inputsWithPicture, answers, seeds, findings } = found;
  const { visibleText } = await import('../report/visible.js');
  const lines = [
    `${visibleText(name)}: ${items} items, ${inputs} inputs (${inputsWithPicture} with a picture), ${answers} answers`,
  ];
  for (const kind of new Set(findings.map((finding) => finding.kind))) {
    const all = findings.filter((finding) => finding.kind === kind);
    for (const { level, message } of all.slice(0, LISTED)) lines.push(`  ${level}: ${kind}: ${visibleText(message)}.`);
    if (all.length > LISTED) lines.push(`  ${all[0]?.level}: ${kind}: ${all.length - LISTED} more; --json lists them.`);
  }
  if (findings.length === 0) lines.push('  nothing found.');
  const where = `under seeds ${seeds.join(', ')}, with 30 validation and 100 test items`;
  lines.push(`  Leaks were looked for ${where}; eval looks in its own splits.`);
  return lines.map((line) => `${line}\n`).join('');
}
