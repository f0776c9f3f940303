import type { Argv, CommandModule } from 'yargs';
import { HOOKS, type HookName } from '../model/types.js';
import { recordPrompt } from '../prompt/prompt-record.js';
import { saveCapture } from '../vectors/vector-file.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  printJson,
  requireNotAborted,
  withSession,
} from './common.js';
import { parseLayers, parsePositions, textOption, withExamples } from './options.js';
import { requireWritable } from './output-file.js';
import { type PromptArguments, promptOptions, promptParts } from './prompt-options.js';

interface CaptureArguments extends ModelArguments, OutputArguments, PromptArguments {
  layers: string;
  positions: string;
  hook: HookName;
  output: string;
}

/** `xpatch capture`: hidden states of one prompt into a safetensors file. */
export const capture: CommandModule<unknown, CaptureArguments> = {
  command: 'capture',
  describe: 'Read hidden states of a prompt into a safetensors file',
  builder: (yargs) =>
    withExamples(
      outputOptions(promptOptions(modelOptions(yargs)))
        .option('layers', textOption('layers', 'all, or block outputs such as 0,3-5', { default: 'all' }))
        .option('positions', textOption('positions', 'all, last, or positions such as 0,5,-1', { default: 'all' }))
        .option('hook', {
          ...textOption('hook', 'Where in a block'),
          choices: HOOKS,
          default: 'resid_post' as HookName,
        })
        .option('output', textOption('output', 'File to write', { alias: 'o', demandOption: true })),
      [
        ['The last token, all layers', 'capture -m demo --prompt "Q:Peru\\nA:" --positions last -o peru.safetensors'],
        ['With a picture', 'capture -m demo --prompt "Q:<image>\\nA:" --image flag.png -o flag.safetensors'],
        ['Token ids, some layers', 'capture -m model.gguf --tokens 1,2,3 --layers 0,3-5 -o states.safetensors'],
      ],
    ) as Argv<unknown> as Argv<CaptureArguments>,
  handler: async (args) => {
    const parts = promptParts(args);
    const layers = parseLayers(args.layers);
    const positions = parsePositions(args.positions);
    await requireWritable(args.output, [args.model, args.mmproj, ...(args.image ?? [])]);
    await withSession(args, async ({ model, context, signal, progress, track }) => {
      progress.update('reading the prompt');
      const prompt = await model.prompt(parts);
      const [result] = await context.pass([{ prompt, capture: { hook: args.hook, layers, positions } }], {
        signal,
        onProgress: track('decoding'),
      });
      const states = result?.states as NonNullable<typeof result>['states'] & object;
      requireNotAborted(signal);
      progress.update('writing');
      const record = recordPrompt(parts, prompt.tokens);
      await saveCapture(args.output, states, { model: model.identity, prompt: record });
      progress.done();
      const { hook, shape } = states;
      if (args.json) {
        const { layers, positions, tokens } = states;
        printJson({
          output: args.output,
          hook,
          shape,
          layers,
          positions,
          tokens,
          model: model.identity,
          prompt: record,
        });
      } else {
        const where = `${shape[0]} layers, ${shape[1]} of ${prompt.length} positions of ${describeModel(model.identity)}`;
        process.stdout.write(`${args.output}: ${hook} [${shape.join(', ')}] (${where})\n`);
      }
    });
  },
};
