import { ATTENTION_HOOKS, ONE_PLACE } from '../hooks/types.js';
import type { HiddenStates } from '../model/hidden-states.js';
import { counted } from '../util/counted.js';
import { CORPUS_OPTIONS, captureMany, isOfMany, parseCapturePositions } from './capture-corpus.js';
import { captureVision } from './capture-vision.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, withoutFlash, withSession } from './common.js';
import { usageError } from './errors.js';
import { flag, parsed, toFolder, vary } from './option.js';
import { AT, HOOK, HOOK_OPTIONS, LAYERS, MODEL_OPTIONS, OUTPUT_FILE, OUTPUT_OPTIONS, placesOf } from './options.js';
import { openOutput } from './output-file.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';

/** `xpatch capture`: hidden states of one prompt into a safetensors file. */
export const capture = defineCommand({
  command: 'capture',
  describe: 'Read hidden states of a prompt, or of a file of prompts, into safetensors',
  options: {
    ...MODEL_OPTIONS,
    ...PROMPT_OPTIONS,
    layers: vary(LAYERS, { default: 'all' }),
    positions: parsed(
      'all, last, or 0,3-5,-1; with --prompts also marks, mean or generated. Defaults to all, with --prompts to last',
      parseCapturePositions,
      {
        value: 'LIST',
        formerly: ['position'],
      },
    ),
    at: AT,
    vision: flag('Instead of a prompt: states of each --image after the blocks of the picture encoder'),
    hook: vary(HOOK, { default: ['resid_post'] }),
    heads: vary(HOOK_OPTIONS.heads, {
      describe: 'Heads, such as 0,3-5, at points that have heads. Defaults to all',
      group: undefined,
    }),
    output: vary(OUTPUT_FILE, { describe: 'File to write, or -; with --prompts a folder', required: true }),
    ...CORPUS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    [
      'The last token of each line of a file, three layers, as shards with an index',
      'capture -m demo --prompts texts.jsonl --layers 2,4,6 -o states',
    ],
    [
      'With a report on them: where a linear probe reads a field of the lines',
      'capture -m demo --prompts countries.csv --template "Q:{country}\\nA:" -o states --report page --label continent',
    ],
    ['The last token, all layers', 'capture -m demo --prompt "Q:Peru\\nA:" --positions last -o peru.safetensors'],
    [
      'With a picture',
      'capture -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png -o flag.safetensors',
    ],
    [
      'The output of two heads, and their patterns',
      'capture -m demo --prompt "Q:Peru\\nA:" --hook z,pattern --heads 0,3 -o heads.safetensors',
    ],
    [
      'What the picture encoder makes of a picture',
      'capture -m demo --vision --image data/images/twemoji/peru.png -o tower.safetensors',
    ],
    ['Token ids, some layers', 'capture -m model.gguf --tokens 1,2,3 --layers 0,3-5 -o states.safetensors'],
  ],
  run: async (args, terminal) => {
    const { json, layers, prompts, image = [] } = args;
    if (prompts !== undefined) {
      if (args.vision) throw usageError('--vision reads pictures and --prompts prompts: give one of them.');
      if (args.prompt !== undefined || args.promptFile !== undefined || args.tokens !== undefined)
        throw usageError('--prompts is a file of prompts: leave out --prompt, --prompt-file and --tokens.');
      if (image.length > 0)
        throw usageError('--prompts names the pictures itself, in a field image: leave --image out.');
      if (args.heads !== undefined) throw usageError('--heads belongs to a single prompt: leave it or --prompts out.');
      return captureMany({ ...args, prompts, output: toFolder(args.output, '--output') }, terminal);
    }
    const lone = (['template', 'chat', 'generate', 'report', 'label'] as const).find((name) => args[name]);
    if (lone) throw usageError(`--${lone} needs --prompts, a file of prompts.`);
    if (args.vision) return captureVision(args, terminal);
    const positions = placesOf(args, 'all');
    if (isOfMany(positions)) {
      throw usageError(`--positions ${positions} needs --prompts.`);
    }
    const parts = await promptParts(args, terminal);
    const inputs = [args.model, args.mmproj, args.promptFile, ...image];
    await using output = await openOutput(args.output, terminal, { json, inputs });
    const scores = args.hook.some((hook) => ATTENTION_HOOKS.includes(hook));
    await withSession(withoutFlash(args, scores), terminal, async (session) => {
      const { model, context, signal, progress, track } = session;
      const prompt = await readPrompt(session, args, parts);
      const captures = args.hook.map((hook) => {
        const one = ONE_PLACE[hook] !== undefined; // whichever layers other points are read at
        return { hook, positions, ...(args.heads && { heads: args.heads }), ...(!one && { layers }) };
      });
      const { captured } = await context.run({ prompt, captures }, { signal, onProgress: track('decoding') });
      const [states, ...others] = captured as [HiddenStates];
      requireNotAborted(signal);
      progress.update('writing');
      await states.save(output.path, ...others);
      await output.deliver();
      progress.done();
      if (args.json) {
        const { hook, shape, layers, heads, positions, tokens } = states;
        const hooks = captured.map(({ hook, shape, layers, heads }) => ({ hook, shape, layers, heads }));
        terminal.printJson({
          output: args.output,
          hook,
          shape,
          layers,
          ...(heads && { heads }),
          ...(others.length > 0 && { hooks }),
          positions,
          tokens,
          model: model.identity,
          prompt: states.prompt,
        });
      } else {
        for (const { hook, shape } of captured) {
          const layers = counted(shape[0] ?? 0, 'layer');
          const where = `${layers}, ${shape[1]} of ${counted(prompt.length, 'position')} of ${describeModel(model.identity)}`;
          terminal.print(`${output.name}: ${hook} [${shape.join(', ')}] (${where})\n`);
        }
      }
    });
  },
});
