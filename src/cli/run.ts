import type { Context } from '../model/context.js';
import type { GenerateOptions, Generation } from '../model/generate.js';
import type { PassRow } from '../model/pass.js';
import type { InterventionReport } from '../model/types.js';
import { writeSafetensors } from '../util/safetensors.js';
import { type ChatArguments, chat, checkChatArguments } from './chat.js';
import { defineCommand } from './command.js';
import { modelOptions, outputOptions, requireNotAborted, withSession } from './common.js';
import { usageError } from './errors.js';
import { parsePosition, repeatedOption, single, textOption, unescapeText, wholeOption } from './options.js';
import { openOutput } from './output-file.js';
import { patchOptions } from './patch-options.js';
import { type PromptArguments, promptOptions, promptParts, readPrompt } from './prompt-options.js';
import { loadVector, requireFit, vectorRecord } from './vector-file.js';

interface RunArguments extends PromptArguments, Omit<ChatArguments, 'image' | 'escape'> {
  chat: boolean;
  everyStep: boolean;
  saveLogits?: string;
}

const MAX_TOKENS = 16;

/** `xpatch run`: generates text, with a vector patched in when asked. */
export const run = defineCommand<RunArguments>({
  command: 'run',
  describe: 'Generate text or chat, plain or with a vector patched in',
  options: (yargs) =>
    patchOptions(outputOptions(promptOptions(modelOptions(yargs))))
      .option('patch', textOption('patch', 'Vector to patch in: a file of extract or capture; needs --layer'))
      .option('layer', wholeOption('layer', 0, 'Block whose output is patched, and row of the vector'))
      .option('every-step', { type: 'boolean', default: false, describe: 'Patch every generated token too' })
      .group(['patch', 'layer', 'position', 'op', 'strength', 'vector-position', 'every-step'], 'Patch:')
      .option(
        'max-tokens',
        wholeOption(
          'max-tokens',
          0,
          `Largest number of new tokens; 0 with --save-logits only. Defaults to ${MAX_TOKENS}, in a chat to 1024`,
          { alias: 'n' },
        ),
      )
      .option('temperature', {
        type: 'number',
        nargs: 1,
        default: 0,
        describe: '0 always takes the best token',
        coerce: temperature,
      })
      .option('seed', wholeOption('seed', 0, 'Seed of the sampling', { default: 1 }))
      .option('stop', repeatedOption('Text that ends the answer; repeat for more'))
      .option('save-logits', textOption('save-logits', 'Write the logits of the last prompt position to this file'))
      .group(['max-tokens', 'temperature', 'seed', 'stop'], 'Generation:')
      .option('chat', {
        type: 'boolean',
        default: false,
        describe: 'Talk in the chat template of the model, see /help there',
      })
      .option('system', textOption('system', 'System message of the chat'))
      .option('chat-template', textOption('chat-template', 'File with a chat template (Jinja) in place of the own one'))
      .group(['chat', 'system', 'chat-template'], 'Chat:'),
  examples: [
    ['The bare query', 'run -m demo --prompt "Q:Peru\\nA:" -n 8'],
    [
      'A task vector patched into a picture query',
      'run -m demo --prompt "Q:<image>\\nA:" --image flag.png --patch capital.safetensors --layer 4',
    ],
    ['Talk to a model about a picture', 'run -m model.gguf --mmproj mmproj.gguf --chat --image photo.jpg'],
    ['Logits of token ids', 'run -m model.gguf --tokens 1,2,3 --save-logits logits.safetensors'],
  ],
  run: async (args, terminal) => {
    if (args.chat) {
      checkChatArguments({ ...args });
      checkPatchArguments(args);
      return chat(args, terminal);
    }
    if (args.system !== undefined || args.chatTemplate !== undefined) {
      throw usageError(`--${args.system === undefined ? 'chat-template' : 'system'} belongs to --chat.`);
    }
    const { maxTokens = MAX_TOKENS } = args;
    const parts = promptParts(args);
    checkPatchArguments(args);
    if (maxTokens === 0 && args.saveLogits === undefined) {
      throw usageError('-n 0 generates nothing: that is of use with --save-logits only.');
    }
    if (maxTokens === 0 && args.everyStep) throw usageError('--every-step needs new tokens, and -n 0 allows none.');
    const position = parsePosition(args.position ?? 'last');
    const inputs = [args.model, args.mmproj, args.patch, ...(args.image ?? [])];
    await using file =
      args.saveLogits === undefined
        ? undefined
        : await openOutput(args.saveLogits, terminal, { json: args.json, inputs });
    const patch = args.patch === undefined ? undefined : await loadVector(args.patch, args.vectorPosition);
    const intervention = patch?.vector.at(args.layer as number, {
      op: args.op,
      strength: args.strength,
      positions: position,
      steps: args.everyStep ? 'all' : 'prompt',
    });

    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const vectorModel = patch && requireFit(patch, model.identity);
      for (const note of patch?.notes ?? []) progress.note(note);
      const prompt = await readPrompt(session, args, parts);
      progress.update('decoding');
      const streaming = !args.json && model.info.hasTokenizer;
      const stop = args.stop?.map((text) => (args.escape ? unescapeText(text) : text));
      const row: PassRow = {
        prompt,
        ...(intervention && { interventions: [intervention] }),
        ...(args.saveLogits !== undefined && { logits: 'last' }),
      };
      const options: GenerateOptions = {
        maxTokens,
        temperature: args.temperature,
        seed: args.seed,
        stop,
        signal,
        ...(!streaming && { onProgress: track('generating') }),
        onText: (_, text) => {
          progress.done();
          if (streaming) terminal.print(text);
        },
      };
      const generation =
        maxTokens === 0 ? await readOnly(context, row, signal) : (await context.generate([row], options))[0];
      progress.done();
      const { text, tokens, finish, logits, interventions } = generation as Generation;
      // A model without a tokenizer has no text: its answer is the token ids.
      if (streaming) terminal.print(text.endsWith('\n') || maxTokens === 0 ? '' : '\n');
      else if (!args.json) terminal.print(`${tokens.join(',')}\n`);
      const record = prompt.record();
      const done = patch && {
        vector: vectorRecord(patch),
        vectorModel,
        ...(interventions[0] as InterventionReport),
        everyStep: args.everyStep,
      };
      if (file && logits) {
        requireNotAborted(signal);
        const metadata = { model: JSON.stringify(model.identity), prompt: JSON.stringify(record) };
        await writeSafetensors(
          file.path,
          { logits: { data: logits.data, shape: logits.shape } },
          done ? { ...metadata, patch: JSON.stringify(done) } : metadata,
        );
        await file.deliver();
      }
      if (args.json) {
        const { temperature, seed } = args;
        const made = temperature > 0 ? { temperature, seed } : { temperature };
        const files = args.saveLogits === undefined ? {} : { logits: args.saveLogits };
        terminal.printJson({
          text,
          tokens,
          finish,
          ...made,
          model: model.identity,
          prompt: record,
          ...(done && { patch: done }),
          ...files,
        });
      }
    });
  },
});

/** `-n 0`: the prompt is decoded and nothing generated. */
async function readOnly(context: Context, row: PassRow, signal: AbortSignal): Promise<Generation> {
  return { ...(await context.run(row, { signal })), text: '', tokens: [], finish: 'length' };
}

function temperature(value: unknown): number {
  const number = single('temperature', value) as number;
  if (Number.isFinite(number) && number >= 0) return number;
  throw usageError('--temperature must be a number from 0.');
}

/** Half a patch is refused: it would run without one and look as if it had none to make. */
function checkPatchArguments(args: RunArguments): void {
  if (args.patch !== undefined) {
    if (args.layer === undefined) throw usageError('--patch needs --layer: the block whose output is patched.');
    return;
  }
  const given = {
    layer: args.layer,
    position: args.position,
    op: args.op,
    strength: args.strength,
    'vector-position': args.vectorPosition,
  };
  const lonely =
    Object.entries(given).find(([, value]) => value !== undefined)?.[0] ?? (args.everyStep && 'every-step');
  if (lonely) throw usageError(`--${lonely} belongs to a patch. Name the vector with --patch.`);
}
