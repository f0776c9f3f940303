import { ATTENTION_HOOKS, type Edge, type InterventionReport } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { GenerateOptions, Generation } from '../model/generate.js';
import type { PassRow } from '../model/pass.js';
import { writeSafetensors } from '../util/safetensors.js';
import { chat, checkChatArguments } from './chat.js';
import { defineCommand } from './command.js';
import { requireNotAborted, withoutFlash, withSession } from './common.js';
import { usageError } from './errors.js';
import { parseEdge } from './knock-out.js';
import { placesOf, unescapeText } from './options.js';
import { openOutput } from './output-file.js';
import { promptParts, readPrompt } from './prompt-options.js';
import { MAX_NEW, RUN_OPTIONS, type RunArguments } from './run-options.js';
import { layersFor, namedVector, requireFit, requireWholePatch, vectorRecord } from './vector-file.js';

/** `xpatch run`: generates text, with a vector patched in if asked. */
export const run = defineCommand({
  command: 'run',
  describe: 'Generate text or chat, plain or with a vector patched in',
  options: RUN_OPTIONS,
  examples: [
    ['The bare query', 'run -m demo --prompt "Q:Peru\\nA:" -n 8'],
    [
      'A task vector patched into a picture query',
      'run -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png --vector capital.safetensors --layers 2 --stop "\\n"',
    ],
    ['Talk to a model about a picture', 'run -m model.gguf --mmproj mmproj.gguf --chat --image photo.jpg'],
    [
      'One head from another prompt, read with capture --hook z',
      'run -m demo --prompt "Q:Peru\\nA:" --vector z.safetensors --hook z --heads 2 --layers 4',
    ],
    [
      'Without what the last token sees of positions 0 to 4 in layers 3 to 5',
      'run -m demo --prompt "Q:Peru\\nA:" --knock-out "3-5:0-4->last"',
    ],
    [
      'A picture that the last token does not see',
      'run -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png --knock-out "all:<image>->last"',
    ],
    ['Logits of token ids', 'run -m model.gguf --tokens 1,2,3 --save-logits logits.safetensors'],
  ],
  run: async (args, terminal) => {
    if (args.chat) {
      checkArguments(args);
      checkChatArguments(args);
      return chat(args, terminal);
    }
    if (args.system !== undefined || args.chatTemplate !== undefined) {
      throw usageError(`--${args.system === undefined ? 'chat-template' : 'system'} needs --chat.`);
    }
    const { maxTokens = MAX_NEW } = args;
    checkArguments(args);
    const parts = await promptParts(args, terminal);
    if (maxTokens === 0 && args.saveLogits === undefined) {
      throw usageError('-n 0 generates nothing: use it only with --save-logits.');
    }
    const { op, strength, steps = args.everyStep ? 'all' : 'prompt' } = args;
    const positions = placesOf(args, undefined);
    if (maxTokens === 0 && steps !== 'prompt') throw usageError('--steps needs new tokens, but -n 0 allows none.');
    const inputs = [args.model, args.mmproj, args.promptFile, ...(args.vector ?? []), ...(args.image ?? [])];
    await using file =
      args.saveLogits === undefined
        ? undefined
        : await openOutput(args.saveLogits, terminal, { json: args.json, inputs });
    const patch = await namedVector(args);
    const intervention = patch?.vector.at(layersFor(patch, args.layers ?? 'all'), {
      op,
      strength,
      heads: args.heads,
      positions,
      steps,
    });
    const edges = (args.knockOut ?? []).map((text): Edge => ({ ...parseEdge(text, args.escape), steps }));

    const hook = patch?.vector.info.hook;
    const scores = edges.some(({ heads }) => heads) || (hook !== undefined && ATTENTION_HOOKS.includes(hook));
    await withSession(withoutFlash(args, scores), terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const vectorModel = patch && requireFit(patch, model.identity);
      for (const note of patch?.notes ?? []) progress.noteOnce(note);
      const prompt = await readPrompt(session, args, parts);
      progress.update('decoding');
      const streaming = !args.json && model.info.hasTokenizer;
      const stop = args.stop?.map((text) => (args.escape ? unescapeText(text) : text));
      const row: PassRow = {
        prompt,
        ...(intervention && { interventions: [intervention] }),
        ...(edges.length > 0 && { edges }),
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
      const { text, tokens, finish, logits, interventions: reports } = generation as Generation;
      const interventions = reports.filter(({ op }) => op !== 'knock-out');
      // A model without a tokenizer has no text: its answer is the token ids.
      if (streaming) terminal.print(text.endsWith('\n') || maxTokens === 0 ? '' : '\n');
      else if (!args.json) terminal.print(`${tokens.join(',')}\n`);
      const record = prompt.record();
      const done = patch && {
        vector: vectorRecord(patch),
        vectorModel,
        ...(interventions[0] as InterventionReport),
        ...(interventions.length > 1 && { interventions }),
        steps,
        everyStep: steps === 'all',
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
          ...(edges.length > 0 && { knockOut: reports.filter(({ op }) => op === 'knock-out') }),
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

function checkArguments(args: RunArguments): void {
  const { hook, heads, knockOut, steps, everyStep } = args;
  if (args.temperature < 0) throw usageError('--temperature must be a number from 0.');
  if (everyStep && steps !== undefined) throw usageError('--every-step is --steps all: give one of them.');
  const when = knockOut ? {} : { steps, everyStep: everyStep || undefined };
  requireWholePatch(args, { hook, heads, ...when });
}
