import { HOOKS } from '../model/types.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { choice, vary } from './option.js';
import { LAYERS, MODEL_OPTIONS, OUTPUT_FILE, OUTPUT_OPTIONS, POSITIONS } from './options.js';
import { openOutput } from './output-file.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';

/** `xpatch capture`: hidden states of one prompt into a safetensors file. */
export const capture = defineCommand({
  command: 'capture',
  describe: 'Read hidden states of a prompt into a safetensors file',
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    layers: vary(LAYERS, { default: 'all' }),
    positions: vary(POSITIONS, { default: 'all' }),
    hook: vary(choice(HOOKS, 'Where in a block'), { default: 'resid_post' }),
    output: vary(OUTPUT_FILE, { required: true }),
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['The last token, all layers', 'capture -m demo --prompt "Q:Peru\\nA:" --positions last -o peru.safetensors'],
    ['With a picture', 'capture -m demo --prompt "Q:<image>\\nA:" --image flag.png -o flag.safetensors'],
    ['Token ids, some layers', 'capture -m model.gguf --tokens 1,2,3 --layers 0,3-5 -o states.safetensors'],
  ],
  run: async (args, terminal) => {
    const { json, layers, positions, image = [] } = args;
    const parts = await promptParts(args, terminal);
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
