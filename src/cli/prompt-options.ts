import type { Argv } from 'yargs';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import type { Session } from './common.js';
import { usageError } from './errors.js';
import { parseTokens, repeatedOption, textOption, unescapeText } from './options.js';

export interface PromptArguments {
  prompt?: string;
  tokens?: string;
  image?: string[];
  escape: boolean;
  literal?: boolean;
  bos: boolean;
}

const IMAGE = '<image>';

export function promptOptions<T>(yargs: Argv<T>): Argv<T & PromptArguments> {
  return yargs
    .option(
      'prompt',
      textOption('prompt', `Text of the prompt, or - for stdin; ${IMAGE} marks where a picture goes`, { alias: 'p' }),
    )
    .option('tokens', textOption('tokens', 'Token ids instead of a text, such as 1,2,3; nothing is added in front'))
    .option('image', repeatedOption(`Picture file, one for each ${IMAGE}, in order; repeat for more`))
    .option('escape', {
      type: 'boolean',
      default: true,
      describe: 'Read \\n, \\t, \\r and \\\\ in texts as escapes; --no-escape leaves them',
    })
    .option('literal', {
      type: 'boolean',
      default: false,
      describe: `Take control tokens in --prompt, such as <s>, as text; without --image ${IMAGE} too`,
    })
    .option('bos', {
      type: 'boolean',
      default: true,
      describe: 'Begin with BOS where the tokenizer does; --no-bos leaves it out',
    })
    .group(['prompt', 'tokens', 'image', 'escape', 'literal', 'bos'], 'Prompt:') as Argv<T & PromptArguments>;
}

/** The parts of the prompt that the arguments describe. */
export function promptParts(args: PromptArguments): PromptPart[] {
  const { prompt, tokens, image: images = [] } = args;
  if ((prompt === undefined) === (tokens === undefined)) {
    throw usageError(`Give either --prompt or --tokens${prompt === undefined ? '' : ', not both'}.`);
  }
  if (tokens !== undefined) {
    if (images.length > 0)
      throw usageError(`--image needs --prompt, where ${IMAGE} marks its place; --tokens has none.`);
    if (args.literal) throw usageError('--literal belongs to --prompt: token ids are what they are.');
    return [{ tokens: parseTokens(tokens) }];
  }
  const whole = args.escape ? unescapeText(prompt as string) : (prompt as string);
  const texts = args.literal && images.length === 0 ? [whole] : whole.split(IMAGE);
  if (texts.length - 1 !== images.length) {
    const problem = `The prompt has ${texts.length - 1} ${IMAGE} and ${images.length} --image were given`;
    throw usageError(`${problem}. Give one picture for each mark, in their order.`);
  }
  return texts.flatMap((text, i) => {
    const part = args.literal ? { literal: text } : text;
    return i === 0 ? [part] : [{ image: images[i - 1] as string }, part];
  });
}

/** The prompt of these parts, with notes of what may not have been meant. */
export async function readPrompt(
  { model, signal, progress }: Session,
  args: PromptArguments,
  parts: readonly PromptPart[],
): Promise<Prompt> {
  progress.update('reading the prompt');
  const prompt = await model.prompt(parts, { signal, bos: args.bos });
  const { promptNotes } = await import('../model/prompt-notes.js');
  for (const note of promptNotes(model, parts, prompt)) progress.note(note);
  return prompt;
}
