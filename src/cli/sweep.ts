import { resolveLayers } from '../hooks/points.js';
import { trackedTokens } from '../model/tracked.js';
import type { TokenScore } from '../model/types.js';
import { rankText } from '../report/tracked.js';
import { writeSafetensors } from '../util/safetensors.js';
import { type Said, type Sweep, sweepLayers } from '../vectors/sweep.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { flag, vary } from './option.js';
import {
  HOOK_OPTIONS,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  PATCH_OPTIONS,
  placesOf,
  REPORT,
  SAVE_LOGITS,
  TOP,
  TRACK,
  unescapeText,
} from './options.js';
import { openOutput } from './output-file.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';
import { startRun } from './report-run.js';
import { type LoadedVector, namedVector, requireFit, vectorRecord } from './vector-file.js';

/** `xpatch sweep`: the next token after a patch at every layer. */
export const sweep = defineCommand({
  command: 'sweep',
  describe: 'Patch a vector in at one layer after another and show the next tokens',
  options: {
    ...PROMPT_OPTIONS,
    ...PATCH_OPTIONS,
    hook: HOOK_OPTIONS.hook,
    vector: vary(PATCH_OPTIONS.vector, { required: true }),
    layers: vary(PATCH_OPTIONS.layers, { default: 'all' }),
    top: vary(TOP, { describe: 'Number of best next tokens to show' }),
    track: vary(TRACK, { describe: 'Token to follow through the layers wherever it ranks; repeat for more' }),
    saveLogits: vary(SAVE_LOGITS, { describe: 'Write the logits [layers, n_vocab] to this file' }),
    report: REPORT,
    naive: flag('Decode the whole prompt again for every layer: the slow reference', { hidden: true }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['All layers, a text query', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
    [
      'Some layers, a picture query',
      'sweep -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png --vector capital.safetensors --layers 0-3',
    ],
  ],
  run: async (args, terminal) => {
    const { layers } = args;
    const positions = placesOf(args, 'last');
    const parts = await promptParts(args, terminal);
    const followed = (args.track ?? []).map((token) => (args.escape ? unescapeText(token) : token));
    const inputs = [args.model, args.mmproj, args.promptFile, ...args.vector, ...(args.image ?? [])];
    await using file =
      args.saveLogits === undefined ? undefined : await openOutput(args.saveLogits, terminal, { ...args, inputs });
    const loaded = (await namedVector(args)) as LoadedVector;
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const vectorModel = requireFit(loaded, model.identity);
      for (const note of loaded.notes) progress.noteOnce(note);
      const prompt = await readPrompt(session, args, parts);
      const record = prompt.record();
      const { naive, op = loaded.vector.op } = args;
      const tracked = await trackedTokens(model, prompt, followed);
      const title = `Layer sweep of ${describeModel(model.identity)}`;
      const options = { prompt: record, vector: vectorRecord(loaded), layers, op, positions };
      const run =
        args.report === undefined
          ? undefined
          : await startRun(session, { output: args.report }, { experiment: 'sweep', title, options });
      const result = await (naive ? sweepOneByOne : sweepLayers)(context, prompt, loaded.vector, {
        layers,
        op,
        strength: args.strength,
        positions,
        track: tracked,
        topK: Math.min(args.top, model.info.nVocab),
        logits: args.saveLogits !== undefined || run !== undefined,
        signal,
        onProgress: track('sweeping'),
      });
      progress.done();
      const written = prompt.positions(positions);
      const patch = {
        vector: vectorRecord(loaded),
        vectorModel,
        position: written.at(-1),
        positions: written,
        op,
        layers: result.layers.map(({ layer }) => layer),
      };
      if (file && result.logits) {
        requireNotAborted(signal);
        await writeSafetensors(
          file.path,
          { logits: result.logits },
          {
            model: JSON.stringify(model.identity),
            prompt: JSON.stringify(record),
            layers: JSON.stringify(patch.layers),
            patch: JSON.stringify(patch),
          },
        );
        await file.deliver();
      }
      if (run) {
        const { sweepReport } = await import('../report/sweep.js');
        const provenance = { ...run.provenance, prompt: record.text };
        await run.finish(sweepReport(result, { title, introduction: [introductionOf(patch)], provenance }));
      }
      if (args.json) {
        const files = {
          ...(args.saveLogits !== undefined && { logits: args.saveLogits }),
          ...(run && { report: run.folder }),
        };
        const known = ({ tracked: followed }: Said) => (tracked.length > 0 ? { tracked: followed } : {});
        const swept = result.layers.map((said) => {
          const { layer, top, delta } = said;
          return { layer, top, delta, ...known(said) };
        });
        terminal.printJson({
          plain: result.plain.top,
          ...known(result.plain),
          layers: swept,
          naive,
          model: model.identity,
          prompt: record,
          patch,
          ...files,
        });
      } else {
        terminal.print(sweepTable(result, model.info.hasTokenizer) + (run?.summary() ?? ''));
      }
    });
  },
});

/** What was patched, in a sentence. */
function introductionOf({
  vector,
  op,
  positions,
}: {
  vector: { file: string };
  op: string;
  positions: readonly number[];
}) {
  const where = positions.length === 1 ? `position ${positions[0]}` : `${positions.length} positions`;
  const how = op === 'add' ? 'is added to' : 'replaces';
  return `The state of ${vector.file} at each layer, alone, ${how} the one of the prompt at ${where}.`;
}

/** The whole prompt again for every layer: the slow reference for a sweep. */
async function sweepOneByOne(
  ...[context, prompt, vector, options = {}]: Parameters<typeof sweepLayers>
): Promise<Sweep> {
  const { nLayers, nVocab } = context.model.info;
  const layers = resolveLayers(options.layers ?? 'all', nLayers);
  const sweeps: Sweep[] = [];
  for (const layer of layers) sweeps.push(await sweepLayers(context, prompt, vector, { ...options, layers: [layer] }));
  const data = new Float32Array(options.logits ? layers.length * nVocab : 0);
  sweeps.forEach(({ logits }, i) => void (logits && data.set(logits.data, i * nVocab)));
  return {
    ...(sweeps[0] as Sweep),
    layers: sweeps.flatMap((sweep) => sweep.layers),
    ...(options.logits && { logits: { data, shape: [layers.length, nVocab] } }),
  };
}

/** One line per layer: the followed tokens, then the best next tokens with their probabilities, in columns. */
function sweepTable({ plain, layers }: Sweep, hasText: boolean): string {
  const name = ({ token, text }: TokenScore) => (hasText ? JSON.stringify(text) : String(token));
  const cells = ({ tracked, top }: Said) => [
    ...tracked.map(rankText),
    ...top.map((score) => `${name(score)} ${score.probability.toFixed(2)}`),
  ];
  const heads = ['layer', ...plain.tracked.map(name)];
  const lines = [
    [...heads, 'next tokens and their probabilities'],
    ['none', ...cells(plain)],
    ...layers.map((said) => [String(said.layer), ...cells(said)]),
  ];
  const widths = heads.map((head) => head.length);
  for (const line of lines.slice(1)) {
    for (const [column, text] of line.entries()) widths[column] = Math.max(widths[column] ?? 5, text.length);
  }
  const format = (line: string[]) =>
    line
      .map((text, column) => text.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return `${lines.map(format).join('\n')}\n`;
}
