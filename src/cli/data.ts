import { basename } from 'node:path';
import { findEntry } from '../hub/catalogue.js';
import type { AnswerTokens } from '../tasks/answer-tokens.js';
import type { CheckOptions, TaskCheck } from '../tasks/check.js';
import type { FirstTokens } from '../tasks/findings.js';
import { isTaskFile } from '../tasks/task.js';
import { counted } from '../util/counted.js';
import { defineCommand, defineGroup } from './command.js';
import { fetchEvents, openModel } from './common.js';
import { EXIT, usageError } from './errors.js';
import { several, text, vary } from './option.js';
import {
  IMAGES_ROOT,
  INSTRUCTION,
  MODEL,
  OUTPUT_FILE,
  OUTPUT_OPTIONS,
  type OutputArguments,
  STYLE,
} from './options.js';
import { openOutput } from './output-file.js';
import type { ProgressLine } from './progress.js';
import type { Terminal } from './terminal.js';

const TOKENIZER = vary(MODEL, { describe: 'Model whose tokenizer shows which answers begin alike. Defaults to none' });

const check = defineCommand({
  command: 'check <files..>',
  describe: 'Find what would stop an experiment on a task or spoil its numbers',
  positionals: {
    files: vary(several('Task files, or shipped tasks by name', { completes: 'task' }), { required: true }),
  },
  options: { imagesRoot: IMAGES_ROOT, style: STYLE, model: TOKENIZER, ...OUTPUT_OPTIONS },
  examples: [
    ['A task of your own', 'data check capitals.json --images-root flags'],
    ['Shipped tasks, and which answers begin with the same token', 'data check food-color animal-latin -m demo'],
  ],
  run: async (args, terminal) => {
    const { files, imagesRoot, style } = args;
    if (imagesRoot !== undefined && !files.some(isTaskFile))
      throw usageError('--images-root has no effect on shipped tasks.');
    if (style !== undefined && files.every(isTaskFile)) throw usageError('--style has no effect on task files.');
    const checks = await withTokens(args, terminal, async (options, progress) => {
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
    if (args.json) terminal.printJson({ ok, checks });
    else terminal.print((await Promise.all(checks.map(describe))).join('\n'));
    if (!ok) terminal.exitCode = EXIT.failed;
  },
});

const importCommand = defineCommand({
  command: 'import <file>',
  describe: "Make a task file from the paper's data or from picture questions, and check it",
  positionals: {
    file: vary(text('JSON list of input, output, image, or of image, question, answer', { completes: 'file' }), {
      required: true,
    }),
  },
  options: {
    imagesRoot: vary(IMAGES_ROOT, { describe: 'Folder that its image paths start from', required: true }),
    output: vary(OUTPUT_FILE, { describe: 'Task file to write', required: true }),
    instruction: INSTRUCTION,
    question: text('The task as a question; chooses among those in the file'),
    domain: text('What the inputs are. Tasks in one domain share their inputs'),
    model: TOKENIZER,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    [
      "The paper's data",
      'data import country_capital.json --images-root flags --instruction "The capital city of the country:" -o capital.json',
    ],
    [
      'One question about many pictures',
      'data import vqa.json --images-root photos --question "What animal is this?" -o animals.json',
    ],
  ],
  run: async (args, terminal) => {
    const { file, imagesRoot: images, output, instruction, question, domain } = args;
    await using written = await openOutput(output, terminal, { json: args.json, inputs: [file] });
    const result = await withTokens(args, terminal, async (options, progress) => {
      const { importTask } = await import('../tasks/import.js');
      const fields = { ...(domain !== undefined && { domain }), ...(instruction !== undefined && { instruction }) };
      return importTask(file, {
        ...options,
        ...fields,
        ...(question !== undefined && { question }),
        images,
        output: written.path,
        folder: written.folder,
        onProgress: (p) => progress.update('checking pictures', p.done / p.total),
      });
    });
    await written.deliver();
    if (args.json) terminal.printJson({ ok: isGood(result), ...result });
    else terminal.print(`${await describe(result)}\nWritten to ${written.name}\n`);
    if (!isGood(result)) terminal.exitCode = EXIT.failed;
  },
});

/** `xpatch data`: task files. */
export const data = defineGroup({
  command: 'data',
  describe: 'Check task files, and import data in other formats',
  subcommands: [check, importCommand],
  examples: [
    ['A task of your own', 'data check capitals.json --images-root flags'],
    ["The paper's data", 'data import country_capital.json --images-root flags -o capitals.json'],
  ],
});

/** Runs a check with the tokenizer of a model, if one was named. */
async function withTokens<T>(
  { model: source, ...output }: OutputArguments & { model?: string },
  terminal: Terminal,
  work: (options: Pick<CheckOptions, 'firstTokens' | 'signal'>, progress: ProgressLine) => Promise<T>,
): Promise<T> {
  const { signal } = terminal;
  using progress = terminal.progress(output);
  if (source === undefined) return await work({ signal }, progress);
  const [{ answerTokens, endOf }, { promptFormat }] = await Promise.all([
    import('../tasks/answer-tokens.js'),
    import('../tasks/model-format.js'),
  ]);
  await using model = await openModel({ model: source, device: 'cpu' }, fetchEvents(terminal, progress));
  const format = await promptFormat(model, findEntry(source)?.template);
  const query = format.write({ query: { input: 'x', output: '' } });
  const of: FirstTokens['of'] = async (answer) => {
    const [{ tokens, first, merged }] = (await answerTokens(model, query, format, [answer])) as [AnswerTokens];
    const id = tokens[first];
    return merged || id === undefined ? undefined : { id, text: model.detokenize([id]) };
  };
  return await work({ signal, firstTokens: { end: endOf(query), of } }, progress);
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
    `${visibleText(name)}: ${counted(items, 'item')}, ${counted(inputs, 'input')} (${inputsWithPicture} with a picture), ${counted(answers, 'answer')}`,
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
