import { IDENTITY_PROMPT, type Patchscope, patchscope as runPatchscope } from '../lens/patchscope.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { ModelIdentity } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { visibleText } from '../report/visible.js';
import { defineCommand } from './command.js';
import {
  describeModel,
  type ModelArguments,
  modelOptions,
  type OutputArguments,
  outputOptions,
  type Session,
  withSession,
} from './common.js';
import { usageError } from './errors.js';
import { parseLayers, parsePosition, textOption, unescapeText, wholeOption } from './options.js';
import { type PromptArguments, promptOptions, promptParts, readPrompt } from './prompt-options.js';
import { type LoadedVector, loadVector, requireFit, vectorRecord } from './vector-file.js';

interface PatchscopeArguments extends ModelArguments, OutputArguments, PromptArguments {
  vector?: string;
  vectorPosition?: number;
  position?: string;
  layers: string;
  targetPrompt?: string;
  targetPosition: string;
  targetLayer: string;
  targetModel?: string;
  maxTokens: number;
}

/** Where the states come from: a file, or a prompt whose states have just been captured. */
interface Source {
  states: HiddenStates | LoadedVector['vector'];
  model: ModelIdentity;
  record: object;
}

/** `xpatch patchscope`: the model says in its own words what a state holds. */
export const patchscope = defineCommand<PatchscopeArguments>({
  command: 'patchscope',
  describe: 'Decode hidden states by patching them into a prompt that repeats them',
  options: (yargs) =>
    outputOptions(promptOptions(modelOptions(yargs)))
      .option('position', textOption('position', 'Whose states: last, or a position of the prompt. Defaults to last'))
      .option('layers', textOption('layers', 'Source layers: all, or block outputs such as 0,3-5', { default: 'all' }))
      .option('vector', textOption('vector', 'Decode this file of extract or capture instead of a prompt'))
      .option(
        'vector-position',
        wholeOption('vector-position', 0, 'Of a capture file: which position is the vector. Defaults to its last one'),
      )
      .group(['position', 'layers', 'vector', 'vector-position'], 'Source:')
      .option(
        'target-prompt',
        textOption('target-prompt', `Target text. Defaults to ${JSON.stringify(IDENTITY_PROMPT)}`),
      )
      .option('target-position', textOption('target-position', 'Where in it: last, or a position', { default: 'last' }))
      .option(
        'target-layer',
        textOption('target-layer', 'same, all, or block outputs such as 0,3-5', { default: 'same' }),
      )
      .option('target-model', textOption('target-model', 'Another model of equal width that decodes, GGUF file'))
      .option('max-tokens', wholeOption('max-tokens', 1, 'Largest number of new tokens', { alias: 'n', default: 8 }))
      .group(['target-prompt', 'target-position', 'target-layer', 'target-model', 'max-tokens'], 'Target:'),
  examples: [
    ['What the last token holds, layer by layer', 'patchscope -m model.gguf --prompt "The capital of Peru is"'],
    [
      'A task vector, with a prompt of your own',
      'patchscope -m demo --vector capital.safetensors --target-prompt "Q:Cuba\\nA:"',
    ],
    [
      'States of a vision-language model decoded by its language model',
      'patchscope -m demo --prompt "Q:<image>\\nA:" --image flag.png --target-model demo-base',
    ],
  ],
  run: async (args, terminal) => {
    const layers = parseLayers(args.layers);
    const targetLayers = args.targetLayer === 'same' ? 'same' : parseLayers(args.targetLayer, '--target-layer');
    const targetPosition = parsePosition(args.targetPosition, '--target-position');
    const given = args.targetPrompt ?? IDENTITY_PROMPT;
    const target = [args.escape ? unescapeText(given) : given];
    const parts = sourceParts(args);
    const loaded = args.vector === undefined ? undefined : await loadVector(args.vector, args.vectorPosition);

    const decode = async (session: Session, source: Source) => {
      const { model, context, signal, progress, track } = session;
      const prompt = await model.prompt(target);
      const result = await runPatchscope(context, source.states, {
        layers,
        targetPrompt: prompt,
        targetPosition,
        targetLayers,
        maxTokens: args.maxTokens,
        signal,
        onProgress: track('decoding'),
      });
      progress.done();
      report(args, session, source, result, prompt.record());
    };
    const fromPrompt = async (session: Session): Promise<Source> => {
      const { model, context, signal } = session;
      const prompt: Prompt = await readPrompt(session, args, parts as PromptPart[]);
      const position = prompt.position(parsePosition(args.position ?? 'last'));
      const [result] = await context.pass([{ prompt, capture: { layers, positions: [position] } }], { signal });
      return {
        states: result?.states as HiddenStates,
        model: model.identity,
        record: { model: model.identity, prompt: prompt.record(), position },
      };
    };

    if (loaded) {
      await withSession(args, terminal, async (session) => {
        requireFit(loaded, session.model.identity);
        for (const note of loaded.notes) session.progress.note(note);
        await decode(session, {
          states: loaded.vector,
          model: loaded.vector.info.model,
          record: { vector: vectorRecord(loaded) },
        });
      });
    } else if (args.targetModel === undefined) {
      await withSession(args, terminal, async (session) => decode(session, await fromPrompt(session)));
    } else {
      const source = await withSession(args, terminal, fromPrompt);
      await withSession({ ...args, model: args.targetModel, mmproj: undefined }, terminal, (session) =>
        decode(session, source),
      );
    }
  },
});

/** The parts of the source prompt; undefined when a vector is decoded. */
function sourceParts(args: PatchscopeArguments): PromptPart[] | undefined {
  if (args.vector === undefined) {
    if (args.vectorPosition !== undefined) throw usageError('--vector-position belongs to --vector.');
    return promptParts(args);
  }
  const given = Object.entries({
    prompt: args.prompt,
    tokens: args.tokens,
    image: args.image,
    position: args.position,
    'target-model': args.targetModel,
  });
  const lonely = given.find(([, value]) => value !== undefined)?.[0];
  if (lonely === 'target-model') throw usageError('--vector is decoded by the model of -m. Leave out --target-model.');
  if (lonely) throw usageError(`--${lonely} belongs to a prompt, and --vector is decoded instead of one.`);
  return undefined;
}

function report(
  args: PatchscopeArguments,
  { model, terminal }: Session,
  source: Source,
  { targetTokens, ...result }: Patchscope,
  record: object,
): void {
  const sourceModel = source.model.hash === model.identity.hash ? 'same' : 'foreign';
  if (args.json) {
    terminal.printJson({
      source: source.record,
      sourceModel,
      target: { model: model.identity, prompt: record },
      ...result,
    });
    return;
  }
  const said = ({ text, tokens }: Patchscope['plain']) =>
    model.info.hasTokenizer ? visibleText(text) : tokens.join(',');
  const rows = [
    ['source', 'target', 'change', `what ${describeModel(model.identity)} says`],
    ['none', '', '', said(result.plain)],
    ...result.decoded.map((one) => [
      `${one.sourceLayer}`,
      `${one.targetLayer}`,
      one.delta.toFixed(one.delta < 100 ? 1 : 0),
      said(one),
    ]),
  ];
  const widths = [6, 6, Math.max(6, ...rows.map((row) => (row[2] as string).length))];
  const lines = rows.map((row) => row.map((cell, i) => (i < 3 ? cell.padEnd(widths[i] as number) : cell)).join('  '));
  terminal.print(`${lines.map((line) => line.trimEnd()).join('\n')}\n`);
}
