import { type Lens, logitLens } from '../lens/logit-lens.js';
import { TunedLens } from '../lens/tuned-lens.js';
import type { Context } from '../model/context.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { Model } from '../model/model.js';
import { resolveLayers } from '../model/pass.js';
import { lensReport, lensTable, lensView } from '../report/lens.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  withSession,
} from './common.js';
import { usageError } from './errors.js';
import { parseLayers, parsePositions, repeatedOption, textOption, unescapeText, wholeOption } from './options.js';
import { type PromptArguments, promptOptions, promptParts, readPrompt } from './prompt-options.js';
import { type ReportArguments, reportOptions, startRun } from './report-run.js';
import { shippedNotes } from './shipped-notes.js';

interface LensArguments extends ModelArguments, OutputArguments, PromptArguments, ReportArguments {
  layers: string;
  positions: string;
  top: number;
  track?: string[];
  tuned?: string;
}

/** The best tokens of the highest layer that are followed through the layers, beside those asked for. */
const FOLLOWED = 3;

/** Tokens beside those asked for that are read in every state, and numbers of them, at most. */
const PINNABLE = 32;
const PINNABLE_NUMBERS = 200_000;

/** `xpatch lens`: what the states of one prompt say, layer by layer. */
export const lens = defineCommand<LensArguments>({
  command: 'lens',
  describe: 'Read the hidden states of a prompt as words, layer by layer (logit lens)',
  options: (yargs) =>
    reportOptions(outputOptions(promptOptions(modelOptions(yargs))), 'lens')
      .option(
        'layers',
        textOption('layers', 'all, or block outputs such as 0,3-5; the last is always read', { default: 'all' }),
      )
      .option(
        'positions',
        textOption('positions', 'all, last, or positions such as 0,5,-1; rows of pictures count', { default: 'all' }),
      )
      .option('top', wholeOption('top', 1, 'Best tokens kept of each state', { default: 5 }))
      .option('track', repeatedOption('Token whose rank and probability are kept of each state; repeat for more'))
      .option('tuned', textOption('tuned', 'Tuned lens to read with: a file of tune'))
      .group(['layers', 'positions', 'top', 'track', 'tuned'], 'Lens:'),
  examples: [
    ['A text prompt', 'lens -m demo --prompt "Q:Peru\\nA:Lima\\n\\nQ:Japan\\nA:"'],
    ['A picture, with words over its patches', 'lens -m demo --prompt "Q:<image>\\nA:" --image flag.png'],
    ['How one answer rises', 'lens -m model.gguf --prompt "The capital of Peru is" --track " Lima"'],
  ],
  run: async (args, terminal) => {
    const parts = promptParts(args);
    const layers = parseLayers(args.layers);
    const positions = parsePositions(args.positions);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const last = model.info.nLayers - 1;
      // The last layer is what the model says: without it there were nothing to compare the others with.
      const read = [...new Set([...resolveLayers(layers, model.info.nLayers), last])];
      const tuned = args.tuned === undefined ? undefined : await TunedLens.load(args.tuned, model.identity);
      const tracked = [...new Set((args.track ?? []).map((text) => oneToken(model, text, args.escape)))];
      const prompt = await readPrompt(session, args, parts);
      prompt.positions(positions); // a wrong one is found before a folder is made
      const record = prompt.record();
      await using run = await startRun(session, args, {
        experiment: 'lens',
        title: `${tuned ? 'Tuned' : 'Logit'} lens of ${describeModel(model.identity)}`,
        options: { prompt: record, layers: read, positions, top: args.top, track: tracked, tuned: args.tuned ?? null },
      });
      const row = { prompt, capture: { layers: read, positions } };
      const { states: captured } = await context.run(row, { signal, onProgress: track('decoding') });
      progress.update('translating the states');
      const states = tuned ? await tuned.apply(captured, { signal }) : captured;
      const topK = Math.min(args.top, model.info.nVocab);
      const lens = await logitLens(context, states, {
        topK,
        tokens: [...tracked, ...(await pinnable(context, states, tracked, signal))],
        signal,
        onProgress: track('reading the states'),
      });
      const atLast = await logitLens(context, states.select({ positions: ['last'] }), {
        topK,
        tokens: followed(lens, tracked),
        signal,
      });
      const found = { model, prompt, lens, asked: tracked.length, last: atLast, tuned: tuned !== undefined };
      const notes = shippedNotes(model);
      await run.finish(lensReport(found, { notes, provenance: { ...run.provenance, prompt: record.text } }));
      if (args.json) {
        const { inputs } = lensView(found);
        terminal.printJson({
          folder: run.folder,
          model: model.identity,
          prompt: record,
          tuned: found.tuned,
          inputs,
          ...lens,
          last: atLast,
        });
      } else {
        terminal.print(`${lensTable(found, terminal.out.columns ?? 110)}\n${run.summary()}`);
      }
    });
  },
});

/** The id of a token written as text. A text of several tokens has no one probability, so it is refused. */
function oneToken(model: Model, text: string, escapes: boolean): number {
  const wanted = escapes ? unescapeText(text) : text;
  const tokens = model.tokenize(wanted);
  if (tokens.length === 1) return tokens[0] as number;
  const pieces = Array.from(tokens, (token) => JSON.stringify(model.detokenize([token])));
  const spaced = model.tokenize(` ${wanted}`).length === 1 ? `, or ${JSON.stringify(` ${text}`)}, which is one` : '';
  const wayOut = tokens.length ? `It is ${pieces.join(' ')}; track the first of them${spaced}.` : 'Give it some text.';
  throw usageError(`--track ${JSON.stringify(text)} is not one token of this model. ${wayOut}`);
}

/**
 * The best tokens of the highest layer, from the last position backwards, as many as a page has room for: pinned there, they
 * show their probability and rank at every layer.
 */
async function pinnable(
  context: Context,
  states: HiddenStates,
  tracked: readonly number[],
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const [nLayers, nPositions] = states.shape;
  const highest = states.select({ layers: [Math.max(...states.layers)] });
  const { cells } = await logitLens(context, highest, { topK: 1, signal });
  const best = cells[0]?.map(({ top }) => top[0]?.token as number).reverse() ?? [];
  const room = Math.min(PINNABLE, Math.floor(PINNABLE_NUMBERS / (nLayers * nPositions)));
  return [...new Set(best)].filter((token) => !tracked.includes(token)).slice(0, room);
}

function followed({ layers, positions, cells }: Lens, tracked: readonly number[]): number[] {
  const highest = layers.indexOf(Math.max(...layers));
  const best = cells[highest]?.[positions.length - 1]?.top.slice(0, FOLLOWED) ?? [];
  return [...new Set([...tracked, ...best.map(({ token }) => token)])];
}
