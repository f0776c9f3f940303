import { resolveLayers } from '../model/pass.js';
import type { TokenScore } from '../model/types.js';
import { writeSafetensors } from '../util/safetensors.js';
import { type Sweep, sweepLayers } from '../vectors/sweep.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  requireNotAborted,
  withSession,
} from './common.js';
import { folderOption, parseLayers, parsePosition, textOption, wholeOption } from './options.js';
import { openOutput } from './output-file.js';
import { type PatchArguments, patchOptions } from './patch-options.js';
import { type PromptArguments, promptOptions, promptParts, readPrompt } from './prompt-options.js';
import { startRun } from './report-run.js';
import { shippedNotes } from './shipped-notes.js';
import { loadVector, requireFit, vectorRecord } from './vector-file.js';

interface SweepArguments extends ModelArguments, OutputArguments, PromptArguments, PatchArguments {
  vector: string;
  layers: string;
  top: number;
  naive: boolean;
  saveLogits?: string;
  report?: string;
}

/** `xpatch sweep`: the next token after a patch at every layer. */
export const sweep = defineCommand<SweepArguments>({
  command: 'sweep',
  describe: 'Patch a vector in at one layer after another and show the next tokens',
  options: (yargs) =>
    patchOptions(outputOptions(promptOptions(modelOptions(yargs))))
      .option(
        'vector',
        textOption('vector', 'Vector to patch in: a file of extract or capture', { demandOption: true }),
      )
      .option('layers', textOption('layers', 'all, or block outputs such as 0,3-5', { default: 'all' }))
      .option('top', wholeOption('top', 1, 'Number of best next tokens to show', { default: 5 }))
      .option('naive', {
        type: 'boolean',
        default: false,
        describe: 'Decode the whole prompt again for every layer: the slow reference',
      })
      .option('save-logits', textOption('save-logits', 'Write the logits [layers, n_vocab] to this file'))
      .option('report', folderOption('report', 'Write a report with the curves into this folder'))
      .group(['vector', 'layers', 'position', 'op', 'strength', 'vector-position'], 'Patch:'),
  examples: [
    ['All layers, a text query', 'sweep -m demo --prompt "Q:Peru\\nA:" --vector capital.safetensors'],
    [
      'Some layers, a picture query',
      'sweep -m demo --prompt "Q:<image>\\nA:" --image flag.png --vector capital.safetensors --layers 3-5',
    ],
  ],
  run: async (args, terminal) => {
    const parts = promptParts(args);
    const layers = parseLayers(args.layers);
    const position = parsePosition(args.position ?? 'last');
    const inputs = [args.model, args.mmproj, args.vector, ...(args.image ?? [])];
    await using file =
      args.saveLogits === undefined
        ? undefined
        : await openOutput(args.saveLogits, terminal, { json: args.json, inputs });
    const loaded = await loadVector(args.vector, args.vectorPosition);
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const vectorModel = requireFit(loaded, model.identity);
      for (const note of loaded.notes) progress.note(note);
      const prompt = await readPrompt(session, args, parts);
      const record = prompt.record();
      const { naive, op = loaded.vector.op } = args;
      const title = `Layer sweep of ${describeModel(model.identity)}`;
      await using run =
        args.report === undefined
          ? undefined
          : await startRun(
              session,
              { output: args.report },
              {
                experiment: 'sweep',
                title,
                options: { prompt: record, vector: vectorRecord(loaded), layers, op, position },
              },
            );
      const result = await (naive ? sweepOneByOne : sweepLayers)(context, prompt, loaded.vector, {
        layers,
        op,
        strength: args.strength,
        positions: position,
        topK: Math.min(args.top, model.info.nVocab),
        logits: args.saveLogits !== undefined || run !== undefined,
        signal,
        onProgress: track('sweeping'),
      });
      progress.done();
      const patch = {
        vector: vectorRecord(loaded),
        vectorModel,
        position: prompt.position(position),
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
        await run.finish(sweepReport(result, { title, introduction: shippedNotes(model), provenance }));
      }
      if (args.json) {
        const files = {
          ...(args.saveLogits !== undefined && { logits: args.saveLogits }),
          ...(run && { report: run.folder }),
        };
        const plain = result.plain.top;
        const swept = result.layers.map(({ layer, top, delta }) => ({ layer, top, delta }));
        terminal.printJson({ plain, layers: swept, naive, model: model.identity, prompt: record, patch, ...files });
      } else {
        terminal.print(sweepTable(result, model.info.hasTokenizer) + (run?.summary() ?? ''));
      }
    });
  },
});

/** The whole prompt again for every layer: the slow reference of what a sweep shares. */
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

/** One line a layer: the best next tokens with their probabilities, in columns. */
function sweepTable({ plain, layers }: Sweep, hasText: boolean): string {
  const cell = ({ token, text, probability }: TokenScore) =>
    `${hasText ? JSON.stringify(text) : token} ${probability.toFixed(2)}`;
  const lines = [
    ['layer', 'next tokens and their probabilities'],
    ['none', ...plain.top.map(cell)],
    ...layers.map(({ layer, top }) => [String(layer), ...top.map(cell)]),
  ];
  const widths: number[] = [];
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
