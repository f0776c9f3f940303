import { counted } from '../util/counted.js';
import type { Condition, Experiment } from './types.js';

/** A preset of `xpatch eval`: the fields of a config file that are not the defaults of its schema. */
export interface Preset {
  readonly title: string;
  /** What it shows, in one sentence. */
  readonly shows: string;
  /** Whether a model without a picture encoder can run it with text queries and without its image conditions. */
  readonly textToo: boolean;
  readonly config: Partial<Experiment> & Pick<Experiment, 'conditions'>;
}

const RANDOM: Condition = { name: 'Random', kind: 'majority' };
const NO_CONTEXT: Condition = { name: 'No Context', kind: 'bare' };
const IMAGE_PROMPT: Condition = { name: 'Image Prompt', kind: 'prompt', spec: 'image' };
const IMAGE_PATCH: Condition = { name: 'Image Patch', kind: 'patch', spec: 'image' };
const TEXT_PROMPT: Condition = { name: 'Text Prompt', kind: 'prompt', spec: 'text' };
const TEXT_PATCH: Condition = { name: 'Text Patch', kind: 'patch', spec: 'text' };
const INSTRUCTION_PATCH: Condition = { name: 'Instruction Patch', kind: 'patch', spec: 'instruction' };

/** The rows of the paper's main table. */
const MAIN_ROWS = [RANDOM, NO_CONTEXT, IMAGE_PROMPT, IMAGE_PATCH, TEXT_PROMPT, TEXT_PATCH];

const CONTROL_ROWS: readonly Condition[] = [
  { name: 'Random Vector Patch', kind: 'patch', spec: 'text', control: 'random-vector' },
  { name: 'Wrong Task Patch', kind: 'patch', spec: 'text', control: 'wrong-task' },
  { name: 'Shuffled Labels Patch', kind: 'patch', spec: 'text', control: 'shuffled-labels' },
  { name: 'Wrong Layer Patch', kind: 'patch', spec: 'text', control: 'wrong-layer' },
  { name: 'Identity Patch', kind: 'patch', spec: 'text', control: 'identity' },
];

const FUNCTION = { kind: 'patch', vector: 'function' } as const;
const STEERING = { kind: 'patch', vector: 'steering' } as const;

const STRENGTHS = [1, 2, 4, 8];

/** How many prompts of five examples a vector is the mean of: n = 5 to 30 examples. */
const SAMPLES = [1, 2, 3, 4, 5, 6];
const EXAMPLES = 5;

/**
 * The experiments of Luo, Darrell and Bar (2024, arXiv 2410.22330) by name, in the paper's sizes: three seeds, 30
 * validation and 100 test items per task, five examples in a prompt.
 */
export const PRESETS: Readonly<Record<string, Preset>> = {
  main: {
    title: 'Cross-modal patching',
    shows: 'Vectors from text, images and instructions patched into image queries, beside prompts and controls.',
    textToo: true,
    config: { query: 'image', scores: ['probability'], conditions: [...MAIN_ROWS, INSTRUCTION_PATCH, ...CONTROL_ROWS] },
  },
  modalities: {
    title: 'Every pair of modalities',
    shows: 'Prompts and patches from text, image and instruction to image queries and to text queries.',
    textToo: true,
    config: {
      query: 'image',
      scores: ['probability'],
      conditions: (['image', 'text'] as const).flatMap((query): Condition[] => [
        { name: `Random, ${query} query`, kind: 'majority', query },
        { name: `No Context, ${query} query`, kind: 'bare', query },
        ...(['image', 'text', 'instruction'] as const).flatMap((spec): Condition[] => [
          { name: `${capital(spec)} Prompt, ${query} query`, kind: 'prompt', spec, query },
          { name: `${capital(spec)} Patch, ${query} query`, kind: 'patch', spec, query },
        ]),
      ]),
    },
  },
  'llm-to-vlm': {
    title: 'Vectors of the language model in the vision-language model',
    shows: "Text vectors of a model's base language model (vectorModel) patched into image queries, and their cosine.",
    textToo: true,
    config: {
      query: 'image',
      scores: ['probability'],
      conditions: [
        RANDOM,
        NO_CONTEXT,
        TEXT_PROMPT,
        TEXT_PATCH,
        { name: 'LLM Text Patch', kind: 'patch', spec: 'text', foreign: true },
        { name: 'LLM Instruction Patch', kind: 'patch', spec: 'instruction', foreign: true },
        { name: 'LLM Wrong Task Patch', kind: 'patch', spec: 'text', foreign: true, control: 'wrong-task' },
        { name: 'LLM Random Vector Patch', kind: 'patch', spec: 'text', foreign: true, control: 'random-vector' },
      ],
    },
  },
  instruction: {
    title: 'Instructions, and how many examples they are worth',
    shows:
      'Accuracy by number of text examples, alone and averaged with the instruction, and with noise in the instruction.',
    textToo: true,
    config: {
      query: 'image',
      ignoreCase: true,
      scores: ['probability'],
      conditions: [
        RANDOM,
        NO_CONTEXT,
        INSTRUCTION_PATCH,
        ...[1, 2].map(
          (swaps): Condition => ({
            name: `Instruction Patch, ${counted(swaps, 'swap')}`,
            kind: 'patch',
            spec: 'instruction',
            swaps,
          }),
        ),
        ...(['text', 'ensemble'] as const).flatMap((spec) =>
          SAMPLES.map(
            (prompts): Condition => ({
              name: `${capital(spec)} Patch, ${prompts * EXAMPLES} examples`,
              kind: 'patch',
              spec,
              prompts,
            }),
          ),
        ),
      ],
    },
  },
  'layer-sweep': {
    title: 'Accuracy by layer',
    shows: 'Patches at every layer on test queries, with prompts as a line to compare with.',
    textToo: true,
    config: {
      query: 'image',
      layers: 'all',
      conditions: [IMAGE_PROMPT, IMAGE_PATCH, TEXT_PROMPT, TEXT_PATCH, INSTRUCTION_PATCH],
    },
  },
  'task-conflict': {
    title: 'A patched instruction against a local question',
    shows: 'Queries that ask one thing while a system instruction, or a patched instruction, asks another.',
    textToo: true,
    config: {
      query: 'image',
      ignoreCase: true,
      conditions: [
        { name: 'Question', kind: 'bare', question: '{rival}' },
        { name: 'Question, System Instruction', kind: 'bare', question: '{rival}', before: '{instruction}\n' },
        { name: 'Question, Instruction Patch', kind: 'patch', spec: 'instruction', question: '{rival}' },
        { name: 'Question, Text Patch', kind: 'patch', spec: 'text', question: '{rival}' },
        {
          name: 'Question, Random Vector Patch',
          kind: 'patch',
          spec: 'instruction',
          control: 'random-vector',
          question: '{rival}',
        },
      ],
    },
  },
  'image-to-text': {
    title: 'Image examples, text queries',
    shows: 'Vectors of pictures patched into queries that describe a picture densely in words.',
    textToo: false,
    config: {
      query: 'text',
      tasks: ['emblem-figure', 'emblem-color', 'emblem-shape'],
      scores: ['probability'],
      conditions: [...MAIN_ROWS, INSTRUCTION_PATCH],
    },
  },
  template: {
    title: "The model's own chat template",
    shows: "The main table with prompts in the model's chat template in place of the paper's Q: and A:.",
    textToo: true,
    config: { query: 'image', template: 'chat', conditions: [...MAIN_ROWS, INSTRUCTION_PATCH] },
  },
  vqa: {
    title: 'Visual question answering',
    shows: 'One question about many pictures as a task: give your own files with --set tasks=[FILE.json].',
    textToo: false,
    config: {
      query: 'image',
      tasks: [],
      // Such files have no text for a picture: the question itself is the only text.
      conditions: [RANDOM, NO_CONTEXT, IMAGE_PROMPT, IMAGE_PATCH, INSTRUCTION_PATCH],
    },
  },
  quantisation: {
    title: 'The same vectors across quantisations',
    shows: 'Vectors of a model in another precision (vectorModel) beside its own: accuracy, cosine and divergence.',
    textToo: true,
    config: {
      query: 'image',
      scores: ['probability'],
      conditions: [
        NO_CONTEXT,
        TEXT_PROMPT,
        TEXT_PATCH,
        INSTRUCTION_PATCH,
        { name: 'Text Patch of the other precision', kind: 'patch', spec: 'text', foreign: true },
        { name: 'Instruction Patch of the other precision', kind: 'patch', spec: 'instruction', foreign: true },
      ],
    },
  },
  'function-vectors': {
    title: 'Function vectors and steering beside task vectors',
    shows: 'What the best heads add, of text and of image examples, added to image queries; with controls.',
    textToo: true,
    config: {
      query: 'image',
      scores: ['probability'],
      conditions: [
        RANDOM,
        NO_CONTEXT,
        TEXT_PROMPT,
        TEXT_PATCH,
        IMAGE_PATCH,
        { name: 'Text Function Vector', ...FUNCTION, spec: 'text' },
        { name: 'Image Function Vector', ...FUNCTION, spec: 'image' },
        { name: 'Random Function Vector', ...FUNCTION, spec: 'text', control: 'random-vector' },
        { name: 'Wrong Task Function Vector', ...FUNCTION, spec: 'text', control: 'wrong-task' },
        { name: 'Shuffled Labels Function Vector', ...FUNCTION, spec: 'text', control: 'shuffled-labels' },
        { name: 'Text Steering Vector', ...STEERING, spec: 'text' },
        { name: 'Random Steering Vector', ...STEERING, spec: 'text', control: 'random-vector' },
      ],
    },
  },
  strength: {
    title: 'Vectors added at several strengths',
    shows:
      'Function and steering vectors of text examples, added to image queries at strengths 1 to 8; random ones too.',
    textToo: true,
    config: {
      query: 'image',
      scores: ['probability'],
      conditions: [
        RANDOM,
        NO_CONTEXT,
        TEXT_PROMPT,
        TEXT_PATCH,
        ...(
          [
            { name: 'Text Function Vector', ...FUNCTION, spec: 'text' },
            { name: 'Random Function Vector', ...FUNCTION, spec: 'text', control: 'random-vector' },
            { name: 'Text Steering Vector', ...STEERING, spec: 'text' },
            { name: 'Random Steering Vector', ...STEERING, spec: 'text', control: 'random-vector' },
          ] as const
        ).flatMap((condition) =>
          STRENGTHS.map(
            (strength): Condition => ({ ...condition, name: `${condition.name}, strength ${strength}`, strength }),
          ),
        ),
      ],
    },
  },
  compute: {
    title: 'What prompting and patching cost',
    shows: 'Time and memory of 30 text examples in the prompt, of a patched query and of the bare query, as ratios.',
    textToo: true,
    config: {
      measure: 'compute',
      query: 'image',
      tasks: ['country-capital'],
      seeds: [1],
      shots: 30,
      validation: 31,
      prompts: 1,
      test: 5,
      conditions: [],
    },
  },
};

function capital(word: string): string {
  return word.charAt(0).toUpperCase() + word.slice(1);
}
