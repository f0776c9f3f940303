import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import type { Model } from './model.js';

/**
 * What somebody may not have meant who wrote a prompt: control tokens in its texts, two BOS at its start, and more positions than the
 * model was trained with.
 */
export function promptNotes(model: Model, parts: readonly PromptPart[], prompt: Prompt): string[] {
  const { addsBos, bosToken, nCtxTrain } = model.info;
  const notes: string[] = [];
  const twice = addsBos && bosToken >= 0 && prompt.tokens[0] === bosToken && prompt.tokens[1] === bosToken;
  if (twice) {
    const bos = model.detokenize([bosToken]);
    notes.push(`The prompt begins with ${bos} twice: the model's tokenizer adds one. Leave it out, or give --no-bos.`);
  }
  const control = parts.flatMap((part) => (typeof part === 'string' ? model.controlTokens(part) : []));
  const shown = [...new Set(control)].map((token) => model.detokenize([token]));
  if (shown.length > 0 && !(twice && shown.length === 1)) {
    const [few, more] = [shown.slice(0, 4).join(' '), shown.length > 4 ? ' and others' : ''];
    notes.push(`${few}${more} in the prompt: read as control tokens. --literal takes them as the text they are.`);
  }
  if (prompt.length > nCtxTrain && nCtxTrain > 0) {
    notes.push(
      `The prompt has ${prompt.length} positions, and the model was trained with at most ${nCtxTrain}: do not trust what it says.`,
    );
  }
  return notes;
}
