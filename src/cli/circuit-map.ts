import { isDeepStrictEqual } from 'node:util';
import { HeadMap } from '../circuits/heads.js';
import { divergenceFrom } from '../circuits/measure.js';
import { type HeadPatching, patchHeads } from '../circuits/patch-heads.js';
import { PatchMap, patchLayers } from '../circuits/patch-layers.js';
import type { HookName, Intervention } from '../hooks/types.js';
import type { RowInput } from '../model/pass.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PositionSelection } from '../prompt/types.js';
import { plural } from '../util/counted.js';
import { BY_HEAD, METRIC_OPTIONS, metricOf } from './circuit-options.js';
import { writeCircuit } from './circuit-report.js';
import { defineCommand } from './command.js';
import { describeModel, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, flag, grouped, several, text, vary, whole } from './option.js';
import {
  AT,
  HOOK,
  LAYERS,
  MODEL_OPTIONS,
  OUTPUT_OPTIONS,
  POSITIONS,
  parseAt,
  placesOf,
  REPORT,
  theOne,
  unescapeText,
} from './options.js';
import { PROMPT_OPTIONS, readPrompt, textParts } from './prompt-options.js';
import { requireReport } from './report-run.js';

const OPTIONS = {
  ...grouped('Prompts', {
    from: vary(text('The prompt that is answered correctly'), { required: true }),
    into: text('One of equally many tokens that is not; it is patched'),
    fromImage: several('Picture for an <image> of --from', { value: 'FILE', completes: 'file' }),
    intoImage: several('Picture for an <image> of --into', { value: 'FILE', completes: 'file' }),
    noise: text('Instead of --into: noise on the tokens of a text in --from, or on its <image>, named as for --at', {
      value: 'TEXT[#N]',
    }),
    noiseSeeds: whole(1, 'How many draws of noise are averaged. Defaults to 3'),
    escape: PROMPT_OPTIONS.escape,
    literal: vary(PROMPT_OPTIONS.literal, { describe: 'Take control tokens in these, such as <s>, as text' }),
    bos: PROMPT_OPTIONS.bos,
  }),
  ...METRIC_OPTIONS,
  ...grouped('Answer', {
    kl: flag('Instead of an answer: KL divergence of the next token from the one after --from, in nats'),
  }),
  byHead: vary(BY_HEAD, { describe: 'Patch each head at all of --positions, instead of each layer and position' }),
  hook: vary(HOOK, { describe: 'What is patched by position', default: ['resid_post'] }),
  layers: vary(LAYERS, { default: 'all' }),
  positions: vary(POSITIONS, { describe: 'all, last, or positions such as 0,3-5,-1. Defaults to all' }),
  at: AT,
  report: REPORT,
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type MapArguments = ArgumentsOf<typeof OPTIONS>;

/** `xpatch circuit map`: which states carry the answer from one prompt to another. */
export const circuitMap = defineCommand({
  command: 'map',
  describe: 'Patch each state of a clean prompt, alone, into a corrupt one',
  options: OPTIONS,
  examples: [
    [
      'Where the country is read, and where its capital is written',
      'circuit map -m demo --from "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --into "Q:Japan\\nA:Tokyo\\n\\nQ:Cuba\\nA:" --right Lima --wrong Havana',
    ],
    [
      'Causal tracing',
      'circuit map -m demo --from "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --noise Peru --right Lima --report trace',
    ],
    [
      'By head',
      'circuit map -m demo --from "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --into "Q:Japan\\nA:Tokyo\\n\\nQ:Cuba\\nA:" --right Lima --by-head',
    ],
  ],
  run: async (args, terminal) => {
    if ((args.into === undefined) === (args.noise === undefined)) throw usageError('Give either --into or --noise.');
    if (args.into === undefined && args.intoImage !== undefined) throw usageError('--into-image needs --into.');
    if (args.noise === undefined && args.noiseSeeds !== undefined) throw usageError('--noise-seeds needs --noise.');
    if (args.into === args.from && isDeepStrictEqual(args.intoImage, args.fromImage)) {
      throw usageError(
        '--from and --into are the same prompt: no patch can change anything. Give --into another, or use --noise.',
      );
    }
    const hook = theOne('--hook', args.hook) as HookName;
    if (args.byHead && hook !== 'resid_post') throw usageError('--by-head patches heads: leave out --hook.');
    if (args.kl && (args.right ?? args.wrong) !== undefined)
      throw usageError('--kl needs no answer: leave out --right and --wrong.');
    const answer = args.kl ? undefined : metricOf(args);
    const partsOf = (prompt: string, images: string[] = []) =>
      textParts(args.escape ? unescapeText(prompt) : prompt, args.literal, images);
    const clean = partsOf(args.from, args.fromImage);
    const corrupt = args.into === undefined ? undefined : partsOf(args.into, args.intoImage);
    await requireReport(args.report);
    const { layers } = args;
    const positions = placesOf(args, 'all');
    await withSession(args, terminal, async (session) => {
      const { model, context, signal, track, progress } = session;
      const from = await readPrompt(session, args, clean);
      const intos: RowInput[] = corrupt
        ? [await readPrompt(session, args, corrupt)]
        : noisy(args).map((noise) => ({ prompt: from, interventions: [noise] }));
      const { metric, name } = answer ?? (await divergence(session, from));
      const onProgress = track('patching');
      // Best tokens of several draws of noise have no mean.
      const topK = args.report !== undefined && intos.length === 1 ? TOP_K : 0;
      const shared = { from, metric, positions, topK, signal };
      const about = {
        title: `Activation patching in ${describeModel(model.identity)}`,
        introduction: [introduction(args, whereOf(from, positions)), promptsOf(args)],
      };
      const report = await import('../report/circuits.js');
      if (args.byHead) {
        const chosen = layers === 'all' ? {} : { layers };
        const all: HeadPatching[] = [];
        for (const into of intos) all.push(await patchHeads(context, { ...shared, into, ...chosen, onProgress }));
        const map = HeadMap.mean(all.map((one) => one.map));
        const clean = all[0]?.clean as number;
        const corrupt = all.reduce((sum, one) => sum + one.corrupt / all.length, 0);
        progress.done();
        const result = {
          metric: name,
          clean,
          corrupt,
          positions: from.positions(positions),
          heads: map.heads.map((head, i) => ({ ...head, value: map.values[i] })),
        };
        await writeCircuit(session, args, {
          result,
          make: (given) => {
            const measured = { metric: name, clean, corrupt, tops: all.length === 1 ? all[0]?.tops : undefined };
            return report.headMapReport(map, measured, { ...about, ...given });
          },
        });
        return;
      }
      const maps: PatchMap[] = [];
      for (const into of intos) maps.push(await patchLayers(context, { ...shared, into, hook, layers, onProgress }));
      const map = meanOf(maps);
      const textOf = (token = -1) => (token < 0 ? null : model.detokenize([token]));
      const inputs = map.positions.map((p, i) => [textOf(map.tokens[i]), textOf(from.tokens[p])] as const);
      const { clean: right, corrupt: wrong, tokens } = map;
      const values = map.layers.map((layer) => map.positions.map((position) => map.at(layer, position)));
      progress.done();
      const result = {
        metric: name,
        hook,
        layers: map.layers,
        positions: map.positions,
        tokens,
        clean: right,
        corrupt: wrong,
        values,
      };
      await writeCircuit(session, args, {
        result,
        make: (given) => report.patchMapReport(map, inputs, name, { ...about, ...given }),
      });
    });
  },
});

const NOISE_SEEDS = 3;

/** Best tokens of each patch in a page. */
const TOP_K = 5;

async function divergence({ context, signal }: Session, from: Prompt) {
  const { logits } = await context.run({ prompt: from, logits: 'last' }, { signal });
  return { metric: divergenceFrom(logits.data), name: 'KL divergence in nats' };
}

function noisy({ noise = '', noiseSeeds = NOISE_SEEDS, escape: escaped }: MapArguments): Intervention[] {
  const positions = placesOf({ at: parseAt(noise), escape: escaped }, 'last');
  // A factor of 3 is Meng et al.'s.
  return Array.from({ length: noiseSeeds }, (_, i) => ({
    hook: 'embed',
    positions,
    op: 'noise',
    factor: 3,
    seed: i + 1,
  }));
}

function meanOf(maps: readonly PatchMap[]): PatchMap {
  if (maps.length === 1) return maps[0] as PatchMap;
  const [{ layers, positions, tokens, clean, values }] = maps as [PatchMap];
  const mean = values.map((_, i) => maps.reduce((sum, map) => sum + (map.values[i] as number) / maps.length, 0));
  const corrupt = maps.reduce((sum, map) => sum + map.corrupt / maps.length, 0);
  return new PatchMap(layers, positions, tokens, mean, clean, corrupt);
}

function promptsOf({ from, into }: MapArguments): string {
  return `Clean prompt: ${from}${into === undefined ? '' : `; corrupt prompt: ${into}`}`;
}

/** `position 3`, `positions 0, 3` */
function whereOf(prompt: Prompt, asked: PositionSelection): string {
  if (asked === 'all') return 'all positions';
  const positions = prompt.positions(asked);
  return `${plural(positions.length, 'position')} ${positions.join(', ')}`;
}

function introduction({ noise, noiseSeeds = NOISE_SEEDS, byHead, hook }: MapArguments, places: string): string {
  const what = byHead ? `The output of each attention head at ${places}` : `Each ${hook[0]} of one layer and position`;
  const where =
    noise === undefined
      ? 'is written from the clean prompt into the corrupt one, alone'
      : `is written from the clean prompt into the one with noise on the embeddings of ${JSON.stringify(noise)} (${noiseSeeds} draws), alone: causal tracing`;
  return `${what} ${where}, and the answer is measured again.`;
}
