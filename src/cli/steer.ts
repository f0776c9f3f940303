import { join } from 'node:path';
import type { Steps } from '../hooks/types.js';
import type { PromptPart } from '../prompt/types.js';
import type { SteeredAnswer } from '../report/steering.js';
import { counted } from '../util/counted.js';
import { isControlVector } from '../vectors/control-vector.js';
import { STEERING_METHODS } from '../vectors/steering.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { defineCommand } from './command.js';
import { describeModel, requireNotAborted, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, choice, dashed, grouped, parsed, several, vary } from './option.js';
import {
  AT,
  LAYERS,
  MAX_TOKENS,
  MODEL_OPTIONS,
  NUMBERING,
  OUTPUT_FILE,
  OUTPUT_OPTIONS,
  POSITIONS,
  placesOf,
  REPORT,
  STEPS,
  theOne,
  VECTOR,
} from './options.js';
import { openOutput } from './output-file.js';
import { PROMPT_OPTIONS, type PromptArguments, promptParts, readPrompt } from './prompt-options.js';
import { requireReport, startRun } from './report-run.js';
import { steeringSource } from './steering-source.js';
import { requireFit, vectorRecord } from './vector-file.js';

const STRENGTHS = [-8, -4, -2, 0, 2, 4, 8];
const MAX_NEW = 32;

const OPTIONS = {
  ...PROMPT_OPTIONS,
  ...grouped('Direction', {
    positive: several(
      'What you want: a prompt, a file of them (lines, .jsonl, .csv or .tsv), or a vector; repeat for more',
      {
        completes: 'file',
      },
    ),
    negative: several('The opposite, given in the same way', { completes: 'file' }),
    method: choice(
      STEERING_METHODS,
      'How the direction is made: mean of the differences, or pca of the pairs. Defaults to mean',
    ),
    vector: vary(VECTOR, { describe: 'Instead of these: a steering vector, or a control vector (GGUF)' }),
    numbering: NUMBERING,
    output: vary(OUTPUT_FILE, { describe: 'Write the vector: .safetensors, or .gguf for llama.cpp' }),
  }),
  ...grouped('Steering', {
    layers: vary(LAYERS, { describe: 'Where it is added: all, or 3,5-8. Defaults to the middle third' }),
    strengths: parsed(`Factors on it: --strengths=-4,0,4. Defaults to ${STRENGTHS}`, parseStrengths, { value: 'LIST' }),
    positions: vary(POSITIONS, { describe: 'Positions of the prompt to steer. Defaults to all' }),
    at: AT,
    steps: vary(STEPS, { describe: 'Steer the prompt, the generated tokens or all. Defaults to all' }),
    maxTokens: vary(MAX_TOKENS, { describe: 'Maximum number of new tokens. Defaults to 32' }),
    report: vary(REPORT, { describe: 'Write a report with the answers into this folder' }),
  }),
  ...MODEL_OPTIONS,
  ...OUTPUT_OPTIONS,
};
type SteerArguments = ArgumentsOf<typeof OPTIONS>;

/** `xpatch steer`: a direction from contrasting prompts, and what it does to the answers. */
export const steer = defineCommand({
  command: 'steer',
  describe: 'Make a steering vector from contrasting prompts, and add it at several strengths',
  options: OPTIONS,
  examples: [
    [
      'Make a vector from pairs of prompts, one per line',
      'steer -m model.gguf --positive happy.txt --negative sad.txt -o mood.safetensors',
    ],
    ['See what it does', 'steer -m model.gguf --vector mood.safetensors --prompt "I feel" --strengths=-4,0,4'],
    [
      'Both at once, from two prompts: capitals instead of currencies, as a file for llama.cpp',
      'steer -m demo --positive "Q:Japan\\nA:Tokyo\\n\\nQ:Cuba\\nA:" --negative "Q:Japan\\nA:Yen\\n\\nQ:Cuba\\nA:" ' +
        '-p "Q:Finland\\nA:" --layers 1 --positions last --steps prompt --strengths=-2,0,2 -n 3 -o capital.gguf',
    ],
  ],
  run: async (args, terminal) => {
    const parts = hasPrompt(args) ? await promptParts(args, terminal) : undefined;
    if (parts === undefined && args.output === undefined) {
      throw usageError('There is nothing to do: give a --prompt to steer, a file to write with -o, or both.');
    }
    if (parts === undefined) requireNothingToSteer(args);
    if (args.maxTokens !== undefined && args.maxTokens < 2) throw usageError('-n must be a whole number from 2.');
    const { strengths = STRENGTHS, steps = 'all', layers, positive = [], negative = [], image = [], json } = args;
    const given = theOne('--vector', args.vector);
    const inputs = [args.model, args.mmproj, args.promptFile, given, ...image, ...positive, ...negative];
    await using file =
      args.output === undefined ? undefined : await openOutput(args.output, terminal, { ...args, inputs });
    await requireReport(args.report);
    await withSession(args, terminal, async (session) => {
      const { model, signal, progress } = session;
      const made = await steeringSource(session, { ...args, vector: given });
      const { vector, notes } = made;
      const vectorModel = requireFit(made, model.identity);
      for (const note of notes) progress.noteOnce(note);
      if (file) {
        requireNotAborted(signal);
        await vector.save(file.path);
        await file.deliver();
      }
      const where = layers === 'all' ? vector.info.layers : (layers ?? middleThird(vector.info.layers));
      const answers =
        parts && (await steeredAnswers(session, args, { parts, vector, layers: where, strengths, steps }));
      const record = { ...vectorRecord(made), vectorModel, layers: vector.info.layers, norms: vector.norms() };
      const { output, report } = args;
      const positions = placesOf(args, 'all');
      const steered = answers && { layers: where, positions, steps, answers };
      if (answers && report !== undefined)
        await writeAnswers(session, args, report, { vector: record, layers: where, positions, steps, answers });
      progress.done();
      if (json) {
        const files = { ...(output !== undefined && { output }), ...(report !== undefined && { report }) };
        return terminal.printJson({ vector: record, model: model.identity, ...steered, ...files });
      }
      const { name } = file ?? {};
      // Such a file has no place for layer 0.
      const written = vector.info.layers.filter((layer) => layer > 0 || !isControlVector(args.output ?? ''));
      if (name) terminal.print(`${name}: ${counted(written.length, 'layer')} of ${describeModel(model.identity)}\n`);
      if (answers) terminal.print(answersText(answers, where));
      if (report !== undefined) terminal.print(`Report: ${join(report, 'report.html')}\n`);
    });
  },
});

function hasPrompt({ prompt, promptFile, tokens }: PromptArguments): boolean {
  return prompt !== undefined || promptFile !== undefined || tokens !== undefined;
}

/** Without a prompt the vector is only written: what says how to steer would have no effect. */
function requireNothingToSteer(args: SteerArguments): void {
  const steering = ['image', 'layers', 'strengths', 'positions', 'at', 'steps', 'maxTokens', 'report'] as const;
  const lonely = steering.find((name) => args[name] !== undefined);
  if (lonely)
    throw usageError(`--${dashed(lonely)} needs a prompt to steer: give --prompt, --prompt-file or --tokens.`);
}

/** `-8,0,8` */
function parseStrengths(text: string): number[] {
  const strengths = text.split(',').map((item) => (item.trim() === '' ? Number.NaN : Number(item)));
  const bad = strengths.findIndex((strength) => !Number.isFinite(strength));
  if (bad < 0) return [...new Set(strengths)];
  const item = JSON.stringify(text.split(',')[bad]);
  throw usageError(
    `--strengths takes numbers separated by commas, such as --strengths=-4,0,4; ${item} is not a number.`,
  );
}

/** Where a direction works best in most models: before the words are chosen. */
function middleThird(layers: readonly number[]): readonly number[] {
  const third = Math.floor(layers.length / 3);
  return layers.slice(third, Math.max(third + 1, layers.length - third));
}

interface Steering {
  readonly parts: readonly PromptPart[];
  readonly vector: TaskVector;
  readonly layers: readonly number[];
  readonly strengths: readonly number[];
  readonly steps: Steps;
}

/** The prompt's answer at each strength, all in one pass. */
async function steeredAnswers(
  session: Session,
  args: SteerArguments,
  { parts, vector, layers, strengths, steps }: Steering,
): Promise<SteeredAnswer[]> {
  const { maxTokens = MAX_NEW } = args;
  const positions = placesOf(args, 'all');
  const prompt = await readPrompt(session, args, parts);
  const rows = strengths.map((strength) => ({
    prompt,
    interventions: strength === 0 ? [] : [vector.at(layers, { op: 'add', strength, positions, steps })],
  }));
  const options = { maxTokens, signal: session.signal, onProgress: session.track('generating') };
  const generations = await session.context.generate(rows, options);
  return generations.map(({ text, finish }, i) => ({ strength: strengths[i] as number, text, finish }));
}

async function writeAnswers(
  session: Session,
  { prompt }: PromptArguments,
  folder: string,
  options: Pick<Steering, 'layers'> & {
    vector: object;
    positions: unknown;
    steps: unknown;
    answers: readonly SteeredAnswer[];
  },
): Promise<void> {
  const { layers, positions, steps, answers } = options;
  const named = `The direction is added at layers ${layers.join(', ')}; positions of the prompt: ${typeof positions === 'string' ? positions : JSON.stringify(positions)}; steps: ${steps}.`;
  const introduction = [...(prompt === undefined ? [] : [`Prompt: ${prompt}`]), named];
  const title = `Steering ${describeModel(session.model.identity)}`;
  const run = await startRun(session, { output: folder }, { experiment: 'steer', title, options });
  const { steeringReport } = await import('../report/steering.js');
  await run.finish(steeringReport(answers, { title, introduction, provenance: run.provenance }));
}

/** A block for each strength: an answer may have several lines. */
function answersText(answers: readonly SteeredAnswer[], layers: readonly number[]): string {
  const width = Math.max(...answers.map(({ strength }) => String(strength).length));
  const indent = `\n${' '.repeat(width + 2)}`;
  const lines = answers.map(
    ({ strength, text }) => `${String(strength).padStart(width)}  ${text.trim().replaceAll('\n', indent)}\n`,
  );
  return `Strength, and what the model says with it at ${layers.length > 1 ? 'layers' : 'layer'} ${layers.join(', ')}:\n${lines.join('')}`;
}
