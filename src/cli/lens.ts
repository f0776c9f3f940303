import { readPromptLens } from '../lens/prompt-lens.js';
import { TunedLens } from '../lens/tuned-lens.js';
import { resolveLayers } from '../model/pass.js';
import { trackedTokens } from '../model/tracked.js';
import { lensTable, lensView, reportOfLens } from '../report/lens.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  withSession,
} from './common.js';
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
      const { model, context, signal } = session;
      const tuned = args.tuned === undefined ? undefined : await TunedLens.load(args.tuned, model.identity);
      const track = (args.track ?? []).map((text) => (args.escape ? unescapeText(text) : text));
      resolveLayers(layers, model.info.nLayers); // what is wrong is found before a folder is made
      const prompt = await readPrompt(session, args, parts);
      prompt.positions(positions);
      const tracked = await trackedTokens(model, prompt, track);
      const record = prompt.record();
      await using run = await startRun(session, args, {
        experiment: 'lens',
        title: `${tuned ? 'Tuned' : 'Logit'} lens of ${describeModel(model.identity)}`,
        options: { prompt: record, layers, positions, top: args.top, track: tracked, tuned: args.tuned ?? null },
      });
      const onProgress = session.track('reading the states');
      const found = await readPromptLens(context, prompt, {
        layers,
        positions,
        topK: args.top,
        track: tracked,
        ...(tuned && { tuned }),
        signal,
        onProgress,
      });
      const { lens, last } = found;
      const notes = shippedNotes(model);
      await run.finish(reportOfLens(found, { notes, provenance: { ...run.provenance, prompt: record.text } }));
      if (args.json) {
        const { inputs } = lensView(found);
        terminal.printJson({
          folder: run.folder,
          model: model.identity,
          prompt: record,
          tuned: found.tuned,
          inputs,
          ...lens,
          last,
        });
      } else {
        terminal.print(`${lensTable(found, terminal.out.columns ?? 110)}\n${run.summary()}`);
      }
    });
  },
});
