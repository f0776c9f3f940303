import { HOOKS, type HookName } from '../model/types.js';
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
import { parseLayers, parsePositions, textOption } from './options.js';
import { openOutput } from './output-file.js';
import { type PromptArguments, promptOptions, promptParts, readPrompt } from './prompt-options.js';

interface CaptureArguments extends ModelArguments, OutputArguments, PromptArguments {
  layers: string;
  positions: string;
  hook: HookName;
  output: string;
}

/** `xpatch capture`: hidden states of one prompt into a safetensors file. */
export const capture = defineCommand<CaptureArguments>({
  command: 'capture',
  describe: 'Read hidden states of a prompt into a safetensors file',
  options: (yargs) =>
    outputOptions(promptOptions(modelOptions(yargs)))
      .option('layers', textOption('layers', 'all, or block outputs such as 0,3-5', { default: 'all' }))
      .option('positions', textOption('positions', 'all, last, or positions such as 0,5,-1', { default: 'all' }))
      .option('hook', {
        ...textOption('hook', 'Where in a block'),
        choices: HOOKS,
        default: 'resid_post' as HookName,
      })
      .option('output', textOption('output', 'File to write', { alias: 'o', demandOption: true })),
  examples: [
    ['The last token, all layers', 'capture -m demo --prompt "Q:Peru\\nA:" --positions last -o peru.safetensors'],
    ['With a picture', 'capture -m demo --prompt "Q:<image>\\nA:" --image flag.png -o flag.safetensors'],
    ['Token ids, some layers', 'capture -m model.gguf --tokens 1,2,3 --layers 0,3-5 -o states.safetensors'],
  ],
  run: async (args, terminal) => {
    const parts = promptParts(args);
    const layers = parseLayers(args.layers);
    const positions = parsePositions(args.positions);
    const { json, image = [] } = args;
    await using output = await openOutput(args.output, terminal, { json, inputs: [args.model, args.mmproj, ...image] });
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const prompt = await readPrompt(session, args, parts);
      const row = { prompt, capture: { hook: args.hook, layers, positions } };
      const { states } = await context.run(row, { signal, onProgress: track('decoding') });
      requireNotAborted(signal);
      progress.update('writing');
      await states.save(output.path);
      await output.deliver();
      progress.done();
      const { hook, shape } = states;
      if (args.json) {
        const { layers, positions, tokens } = states;
        terminal.printJson({
          output: args.output,
          hook,
          shape,
          layers,
          positions,
          tokens,
          model: model.identity,
          prompt: states.prompt,
        });
      } else {
        const where = `${shape[0]} layers, ${shape[1]} of ${prompt.length} positions of ${describeModel(model.identity)}`;
        terminal.print(`${output.name}: ${hook} [${shape.join(', ')}] (${where})\n`);
      }
    });
  },
});
