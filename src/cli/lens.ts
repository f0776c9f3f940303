import { resolveLayers } from '../hooks/points.js';
import { readPromptLens } from '../lens/prompt-lens.js';
import { TunedLens } from '../lens/tuned-lens.js';
import { trackedTokens } from '../model/tracked.js';
import { lensTable, lensView, reportOfLens } from '../report/lens.js';
import { defineCommand } from './command.js';
import { describeModel, withSession } from './common.js';
import { grouped, text, vary } from './option.js';
import {
  AT,
  LAYERS,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  POSITIONS,
  placesOf,
  RUN_FOLDER,
  TOP,
  TRACK,
  unescapeText,
} from './options.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';
import { startRun } from './report-run.js';

/** `xpatch lens`: what the states of one prompt say, layer by layer. */
export const lens = defineCommand({
  command: 'lens',
  describe: 'Read the hidden states of a prompt as words, layer by layer (logit lens)',
  options: {
    ...PROMPT_OPTIONS,
    ...grouped('Lens', {
      layers: vary(LAYERS, {
        describe: 'all, or block outputs such as 0,3-5; the last is always read',
        default: 'all',
      }),
      positions: vary(POSITIONS, {
        describe: 'all, last, or positions such as 0,3-5,-1; rows of pictures count too. Defaults to all',
      }),
      at: AT,
      top: vary(TOP, { describe: 'Best tokens to keep for each state' }),
      track: TRACK,
      tuned: text('Tuned lens to read with: a file from tune', { value: 'FILE', completes: 'file' }),
      output: vary(RUN_FOLDER, { describe: 'Folder of the report. Defaults to xpatch-lens-DATE-TIME here' }),
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['A text prompt', 'lens -m demo --prompt "Q:Peru\\nA:Lima\\n\\nQ:Japan\\nA:"'],
    [
      'A picture, with words over its patches',
      'lens -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png',
    ],
    ['How one answer rises', 'lens -m demo --prompt "Q:Peru\\nA:" --track Lima'],
  ],
  run: async (args, terminal) => {
    const { layers } = args;
    const positions = placesOf(args, 'all');
    const parts = await promptParts(args, terminal);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal } = session;
      const tuned = args.tuned === undefined ? undefined : await TunedLens.load(args.tuned, model.identity);
      const track = (args.track ?? []).map((text) => (args.escape ? unescapeText(text) : text));
      resolveLayers(layers, model.info.nLayers); // errors are found before a folder is made
      const prompt = await readPrompt(session, args, parts);
      prompt.positions(positions);
      const tracked = await trackedTokens(model, prompt, track);
      const record = prompt.record();
      const run = await startRun(session, args, {
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
      await run.finish(reportOfLens(found, { provenance: { ...run.provenance, prompt: record.text } }));
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
