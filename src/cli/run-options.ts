import { type ArgumentsOf, flag, grouped, number, several, text, vary } from './option.js';
import {
  CHAT,
  HOOK_OPTIONS,
  MAX_TOKENS,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  PATCH_OPTIONS,
  SAVE_LOGITS,
  SEED,
  STEPS,
} from './options.js';
import { PROMPT_OPTIONS } from './prompt-options.js';

/** New tokens outside a chat. */
export const MAX_NEW = 16;

export const RUN_OPTIONS = {
  ...PROMPT_OPTIONS,
  ...PATCH_OPTIONS,
  vector: vary(PATCH_OPTIONS.vector, {
    describe: 'Vector to patch in: a file from extract or capture; needs --layers',
  }),
  layers: vary(PATCH_OPTIONS.layers, { describe: 'Blocks whose output is patched, each with its row of the vector' }),
  ...grouped('Patch', {
    ...HOOK_OPTIONS,
    steps: STEPS,
    knockOut: several(
      'Attention to cut: LAYERS[:HEADS]:FROM->TO, such as 3-5:0-4->last or all:Peru->last; repeat for more',
      { value: 'EDGE' },
    ),
    everyStep: flag('--steps all', { hidden: true }),
  }),
  ...grouped('Generation', {
    maxTokens: vary(MAX_TOKENS, {
      describe: `Maximum number of new tokens; 0 only with --save-logits. Defaults to ${MAX_NEW}, in a chat to 1024`,
    }),
    temperature: vary(number('0 always takes the best token'), { default: 0 }),
    seed: vary(SEED, { describe: 'Seed of the sampling', default: 1 }),
    stop: several('Text that ends the answer; repeat for more'),
    saveLogits: vary(SAVE_LOGITS, { describe: 'Write the logits of the last prompt position to this file' }),
  }),
  ...grouped('Chat', {
    chat: CHAT,
    system: text('System message of the chat'),
    chatTemplate: text("File with a chat template (Jinja) instead of the model's own", {
      value: 'FILE',
      completes: 'file',
    }),
  }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
export type RunArguments = ArgumentsOf<typeof RUN_OPTIONS>;
