import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { requireText } from '../util/lines.js';
import { readWhole } from '../util/read-file.js';
import type { Session } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, flag, grouped, parsed, several, text } from './option.js';
import { IMAGE, parseTokens, unescapeText } from './options.js';
import type { Terminal } from './terminal.js';

export const PROMPT_OPTIONS = grouped('Prompt', {
  prompt: text(`Text of the prompt, or - for stdin; ${IMAGE} marks where a picture goes`, { letter: 'p' }),
  promptFile: text('File with the text of the prompt', { value: 'FILE', completes: 'file' }),
  tokens: parsed('Token ids instead of text, such as 1,2,3; nothing is added in front', parseTokens, { value: 'LIST' }),
  image: several(`Picture file, one for each ${IMAGE}, in order; repeat for more`, {
    value: 'FILE',
    completes: 'file',
  }),
  escape: flag('Read \\n, \\t, \\r and \\\\ in texts as escapes; --no-escape leaves them', { default: true }),
  literal: flag(`Take control tokens in --prompt, such as <s>, as text; also ${IMAGE} if there is no --image`),
  bos: flag('Begin with BOS if the tokenizer does; --no-bos leaves it out', { default: true }),
});
export type PromptArguments = ArgumentsOf<typeof PROMPT_OPTIONS>;

/** A prompt in a file or a stream: the limit is far longer than any context. */
const MAX_MB = 64;
const TEXT = { what: 'the prompt', maxBytes: MAX_MB << 20, pipe: true } as const;

/** The parts of the prompt that the arguments describe. @throws {XpatchError} INVALID_ARGUMENT, FILE_NOT_FOUND */
export async function promptParts(args: PromptArguments, terminal: Terminal): Promise<PromptPart[]> {
  const { prompt, promptFile, tokens, image: images = [] } = args;
  const given = Object.entries({ prompt, 'prompt-file': promptFile, tokens }).filter(
    ([, value]) => value !== undefined,
  );
  if (given.length === 0) throw usageError('Give a prompt: --prompt, --prompt-file or --tokens.');
  if (given.length > 1) throw usageError(`Give either ${given.map(([name]) => `--${name}`).join(' or ')}, not both.`);
  if (tokens !== undefined) {
    if (images.length > 0)
      throw usageError(`--image needs --prompt, where ${IMAGE} marks its place; --tokens has no place for it.`);
    if (args.literal) throw usageError('--literal needs --prompt: it has no effect on token ids.');
    return [{ tokens }];
  }
  return textParts(await promptText(args, terminal), args.literal, images);
}

/** The parts of a text, with a picture for each `<image>` in it. @throws {XpatchError} INVALID_ARGUMENT */
export function textParts(whole: string, literal: boolean, images: readonly string[]): PromptPart[] {
  const texts = literal && images.length === 0 ? [whole] : whole.split(IMAGE);
  if (texts.length - 1 !== images.length) {
    const problem = `The prompt has ${texts.length - 1} ${IMAGE} and ${images.length} --image were given`;
    throw usageError(`${problem}. Give one picture for each mark, in order.`);
  }
  return texts.flatMap((piece, i) => {
    const part = literal ? { literal: piece } : piece;
    return i === 0 ? [part] : [{ image: images[i - 1] as string }, part];
  });
}

/** What comes from a file or stdin is taken verbatim except for the final line break. */
async function promptText({ prompt, promptFile, escape: escaped }: PromptArguments, { io }: Terminal): Promise<string> {
  if (promptFile !== undefined) return verbatim(await readWhole(promptFile, TEXT), promptFile);
  if (prompt !== '-') return escaped ? unescapeText(prompt as string) : (prompt as string);
  if (io.stdin.isTTY) throw usageError('--prompt - reads standard input: pipe text into it, or use < FILE.');
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of io.stdin) {
    chunks.push(Buffer.from(chunk as Buffer));
    bytes += (chunks.at(-1) as Buffer).length;
    if (bytes > TEXT.maxBytes) throw usageError(`The standard input is longer than a prompt can be: ${MAX_MB} MiB.`);
  }
  return verbatim(Buffer.concat(chunks), 'The standard input');
}

const verbatim = (bytes: Buffer, from: string) => requireText(bytes, from).replace(/\r?\n$/, '');

/** The prompt of these parts, with notes on what may be unintended. */
export async function readPrompt(
  { model, signal, progress }: Session,
  args: Pick<PromptArguments, 'bos'>,
  parts: readonly PromptPart[],
): Promise<Prompt> {
  progress.update('reading the prompt');
  const prompt = await model.prompt(parts, { signal, bos: args.bos });
  await notePrompt({ model, progress }, parts, prompt);
  return prompt;
}

/** Notes of what may not have been meant in a prompt, each kind once in a command. */
export async function notePrompt(
  { model, progress }: Pick<Session, 'model' | 'progress'>,
  parts: readonly PromptPart[],
  prompt: Prompt,
): Promise<void> {
  const { promptNotes } = await import('../model/prompt-notes.js');
  for (const note of promptNotes(model, parts, prompt)) progress.noteOnce(note);
}
