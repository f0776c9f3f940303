import type { Argv } from 'yargs';
import type { PromptPart } from '../prompt/types.js';
import { usageError } from './errors.js';
import { parseTokens, repeatedOption, textOption, unescapeText } from './options.js';

export interface PromptArguments {
  prompt?: string;
  tokens?: string;
  image?: string[];
  escape: boolean;
}

const IMAGE = '<image>';

export function promptOptions<T>(yargs: Argv<T>): Argv<T & PromptArguments> {
  return yargs
    .option('prompt', textOption('prompt', `Text of the prompt; ${IMAGE} marks where a picture goes`))
    .option('tokens', textOption('tokens', 'Token ids instead of a text, such as 1,2,3; nothing is added in front'))
    .option('image', repeatedOption(`Picture file, one for each ${IMAGE}, in order; repeat for more`))
    .option('escape', {
      type: 'boolean',
      default: true,
      describe: 'Read \\n, \\t, \\r and \\\\ in texts as escapes; --no-escape leaves them',
    })
    .group(['prompt', 'tokens', 'image', 'escape'], 'Prompt:') as Argv<T & PromptArguments>;
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
    return [{ tokens: parseTokens(tokens) }];
  }
  const texts = (args.escape ? unescapeText(prompt as string) : (prompt as string)).split(IMAGE);
  if (texts.length - 1 !== images.length) {
    const problem = `The prompt has ${texts.length - 1} ${IMAGE} and ${images.length} --image were given`;
    throw usageError(`${problem}. Give one picture for each mark, in their order.`);
  }
  return texts.flatMap((text, i) => (i === 0 ? [text] : [{ image: images[i - 1] as string }, text]));
}
