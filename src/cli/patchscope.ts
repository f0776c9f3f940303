import { IDENTITY_PROMPT, type Patchscope, patchscope as runPatchscope } from '../lens/patchscope.js';
import type { HiddenStates } from '../model/hidden-states.js';
import type { ModelIdentity } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { visibleText } from '../report/visible.js';
import { defineCommand } from './command.js';
import { describeModel, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, grouped, parsed, text, vary } from './option.js';
import {
  AT,
  IMAGE,
  LAYERS,
  MAX_TOKENS,
  MODEL,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  POSITIONS,
  parseLayers,
  parsePositions,
  placesOf,
  thePosition,
  unescapeText,
  VECTOR,
  VECTOR_POSITION,
} from './options.js';
import { PROMPT_OPTIONS, promptParts, readPrompt } from './prompt-options.js';
import type { Terminal } from './terminal.js';
import { type LoadedVector, namedVector, requireFit, vectorRecord } from './vector-file.js';

const OPTIONS = {
  ...PROMPT_OPTIONS,
  literal: vary(PROMPT_OPTIONS.literal, {
    describe: `Take control tokens in --prompt and --target-prompt, such as <s>, as text; also ${IMAGE} if there is no --image`,
  }),
  bos: vary(PROMPT_OPTIONS.bos, {
    describe: 'Begin both prompts with BOS if the tokenizer does; --no-bos leaves it out',
  }),
  ...grouped('Source', {
    positions: vary(POSITIONS, { describe: 'Whose states: last, or a position of the prompt. Defaults to last' }),
    at: vary(AT, { describe: 'Instead: the last token of a text, its last occurrence or the N-th (-N: from the end)' }),
    layers: vary(LAYERS, { describe: 'Source layers: all, or block outputs such as 0,3-5', default: 'all' }),
    vector: vary(VECTOR, { describe: 'Decode this file from extract or capture instead of a prompt' }),
    vectorPosition: VECTOR_POSITION,
  }),
  ...grouped('Target', {
    targetPrompt: text(`Target text. Defaults to ${JSON.stringify(IDENTITY_PROMPT)}`),
    targetPositions: vary(
      parsed('Where in it: last, or a position', parsePositions, { value: 'LIST', formerly: ['target-position'] }),
      { default: 'last' },
    ),
    targetLayers: vary(
      parsed('same, all, or block outputs such as 0,3-5', parseTargetLayers, {
        value: 'LIST',
        formerly: ['target-layer'],
      }),
      { default: 'same' },
    ),
    targetModel: vary(MODEL, { describe: 'Another model of equal width that decodes', letter: undefined }),
    maxTokens: vary(MAX_TOKENS, { default: 8 }),
  }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type PatchscopeArguments = ArgumentsOf<typeof OPTIONS>;

function parseTargetLayers(given: string, option: string): 'same' | 'all' | number[] {
  return given === 'same' ? given : parseLayers(given, option);
}

/** Where the states come from: a file, or a prompt whose states have just been captured. */
interface Source {
  states: HiddenStates | LoadedVector['vector'];
  model: ModelIdentity;
  record: object;
}

/** `xpatch patchscope`: the model says in its own words what a state holds. */
export const patchscope = defineCommand({
  command: 'patchscope',
  describe: 'Decode hidden states by patching them into a prompt that repeats them',
  options: OPTIONS,
  examples: [
    ['What the last token holds, layer by layer', 'patchscope -m model.gguf --prompt "The capital of Peru is"'],
    [
      'A task vector, with your own prompt',
      'patchscope -m demo --vector capital.safetensors --target-prompt "Q:Cuba\\nA:"',
    ],
    [
      'States of a vision-language model decoded by its language model',
      'patchscope -m demo --prompt "Q:<image>\\nA:" --image data/images/twemoji/peru.png --target-model demo-base',
    ],
  ],
  run: async (args, terminal) => {
    const { layers, targetLayers } = args;
    const targetPosition = thePosition('--target-positions', args.targetPositions);
    const given = placesOf(args, 'last');
    const positions = typeof given === 'object' && !Array.isArray(given) ? given : thePosition('--positions', given);
    if (args.maxTokens === 0) throw usageError('-n must be a whole number from 1.');
    const { targetPrompt = IDENTITY_PROMPT } = args;
    const asked = args.escape ? unescapeText(targetPrompt) : targetPrompt;
    const target: PromptPart[] = [args.literal ? { literal: asked } : asked];
    const parts = await sourceParts(args, terminal);
    const loaded = await namedVector(args);

    const decode = async (session: Session, source: Source) => {
      const { context, signal, progress, track } = session;
      const prompt = await readPrompt(session, args, target);
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
      const source = prompt.positions(positions).at(-1) as number;
      const [result] = await context.pass([{ prompt, capture: { layers, positions: [source] } }], { signal });
      return {
        states: result?.states as HiddenStates,
        model: model.identity,
        record: { model: model.identity, prompt: prompt.record(), position: source },
      };
    };

    if (loaded) {
      await withSession(args, terminal, async (session) => {
        requireFit(loaded, session.model.identity);
        for (const note of loaded.notes) session.progress.noteOnce(note);
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
async function sourceParts(args: PatchscopeArguments, terminal: Terminal): Promise<PromptPart[] | undefined> {
  if (args.vector === undefined) {
    if (args.vectorPosition !== undefined) throw usageError('--vector-position needs --vector.');
    return promptParts(args, terminal);
  }
  const given = Object.entries({
    prompt: args.prompt,
    'prompt-file': args.promptFile,
    tokens: args.tokens,
    image: args.image,
    positions: args.positions,
    at: args.at,
    'target-model': args.targetModel,
  });
  const lonely = given.find(([, value]) => value !== undefined)?.[0];
  if (lonely === 'target-model') throw usageError('--vector is decoded by the model of -m. Leave out --target-model.');
  if (lonely) throw usageError(`--${lonely} needs a prompt, but --vector is decoded instead of one.`);
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
