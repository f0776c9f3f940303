import type { Context } from '../model/context.js';
import { bytesPerPosition } from '../model/context-size.js';
import type { BuiltRow } from '../model/pass.js';
import { promptFormat } from '../tasks/model-format.js';
import type { Modality } from '../tasks/prompts.js';
import { splitTask } from '../tasks/split.js';
import { loadTask } from '../tasks/task.js';
import type { PromptTemplate } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import { extractTaskVector } from '../vectors/extract.js';
import { runStudy, type Study, type StudyEvents, type Unit } from './study.js';

/** Which ways to an answer are measured, on which queries. */
export interface ComputeOptions {
  /** Shipped task by name, or a task file: where the examples and queries come from. */
  readonly task: string;
  readonly seed: number;
  /** What the queries are. Examples are text. */
  readonly query: Modality;
  /** Drawing style of the shipped pictures. Defaults to `twemoji`. */
  readonly style?: string;
  /** How prompts are written. Defaults to the paper's template. */
  readonly template?: PromptTemplate;
  /** Examples in the prompt. Defaults to 30, the paper's. */
  readonly shots?: number;
  /** Queries, each asked in every way. Defaults to 5. */
  readonly queries?: number;
  /** Rounds over all queries and ways. Defaults to 7. */
  readonly repetitions?: number;
}

const WAYS = ['Prompt', 'Patch', 'Query alone'] as const;
type Way = (typeof WAYS)[number];

/** What a way of asking costs. */
export interface WayCost {
  readonly way: Way;
  /** Positions of the KV cache that a query takes, one number a query. */
  readonly positions: readonly number[];
  /** From the finished prompt to the first new token, seconds, one number a query and repetition. */
  readonly seconds: readonly number[];
}

/** Time and tokens of each way to an answer. */
export interface ComputeResult {
  readonly shots: number;
  readonly query: Modality;
  readonly repetitions: number;
  readonly ways: readonly WayCost[];
  /** Reading the vector that is patched in, once for all queries: seconds. */
  readonly vectorSeconds: number;
  /** Keys and values of one position in all layers, bytes; undefined where the file does not say how wide they are. */
  readonly bytesPerPosition: number | undefined;
  /** Weights of the language model, bytes: the same whatever is asked. */
  readonly weightBytes: number;
}

/** What a part of the measurement leaves: what is measured, or the times of one round. */
export interface ComputePart extends Partial<Omit<ComputeResult, 'ways'>> {
  readonly positions?: Readonly<Record<Way, readonly number[]>>;
  readonly seconds?: Readonly<Record<Way, readonly number[]>>;
}

/**
 * What a task costs when it is in the prompt, when it is patched in, and when it is not there (Luo, Darrell and Bar 2024, table
 * of compute): `shots` text examples and the query; the query with a vector; the query. All three are measured in turns, so that
 * whatever else the machine does hits all of them. Pictures are encoded and texts tokenised beforehand.
 *
 * @throws XpatchError INVALID_ARGUMENT; TASK_INVALID for too few items; CONTEXT_OVERFLOW when the examples do not fit;
 *   otherwise as `Context.pass`.
 */
export async function runCompute(
  context: Context,
  options: ComputeOptions,
  events: StudyEvents<ComputePart> = {},
): Promise<ComputeResult> {
  return computeOf(await runStudy(computeUnits, context, options, events));
}

/** The result that the parts of a measurement make. */
export function computeOf([first = {}, ...rounds]: readonly ComputePart[]): ComputeResult {
  const { positions, ...about } = first as Required<ComputePart>;
  const ways = WAYS.map((way) => ({
    way,
    positions: positions[way],
    seconds: rounds.flatMap(({ seconds }) => seconds?.[way] ?? []),
  }));
  return { ...about, ways };
}

/** A part to set it up, and one for each round. */
export const computeUnits: Study<ComputeOptions, ComputePart> = async (context, options) => {
  const { seed, query, style, template, shots = 30, queries = 5, repetitions = 7 } = options;
  for (const [name, value] of Object.entries({ shots, queries, repetitions })) {
    if (Number.isInteger(value) && value >= 1) continue;
    throw new XpatchError('INVALID_ARGUMENT', `${name} must be a whole number from 1, not ${value}.`);
  }
  const pictures = query === 'image';
  const task = await loadTask(options.task, { pictures, ...(style !== undefined && { style }) });
  const split = splitTask(task, seed, { pictures, validation: shots + 1, test: queries });
  if (split.test.length === 0) {
    throw new XpatchError(
      'TASK_INVALID',
      `${task.name} has no items left to ask about besides ${shots} examples. Ask for fewer.`,
    );
  }
  const format = await promptFormat(context.model, template);
  const setUp = async (signal: AbortSignal | undefined) => {
    const started = performance.now();
    const vector = await extractTaskVector(context, split, { spec: 'text', shots, prompts: 1, template, signal });
    const vectorSeconds = (performance.now() - started) / 1000;
    const edit = vector.at(Math.floor(context.model.info.nLayers / 2), { positions: 'delimiter' });
    const asked: Record<Way, BuiltRow>[] = [];
    for (const item of split.test) {
      const asking = { query: item, queryModality: query };
      const bare = await context.model.prompt(format.write(asking), { signal });
      const examples = format.write({ ...asking, shots: split.validation.slice(0, shots), shotModality: 'text' });
      asked.push({
        Prompt: { prompt: await context.model.prompt(examples, { signal }), topK: 1 },
        Patch: { prompt: bare, topK: 1, interventions: [edit] },
        'Query alone': { prompt: bare, topK: 1 },
      });
    }
    const round = async () => {
      const seconds: Record<Way, number[]> = { Prompt: [], Patch: [], 'Query alone': [] };
      for (const rows of asked) {
        for (const way of WAYS) {
          const start = performance.now();
          await context.pass([rows[way]], { signal });
          seconds[way].push((performance.now() - start) / 1000);
        }
      }
      return seconds;
    };
    await round(); // warms up and does not count
    return { vectorSeconds, asked, round };
  };
  let ready: Awaited<ReturnType<typeof setUp>> | undefined;
  return [
    {
      name: 'setting up',
      run: async (_, { signal }) => {
        ready = await setUp(signal);
        const { vectorSeconds, asked } = ready;
        const positionsOf = (way: Way) => asked.map((rows) => rows[way].prompt.length);
        return {
          shots,
          query,
          repetitions,
          positions: Object.fromEntries(WAYS.map((way) => [way, positionsOf(way)])) as Record<Way, number[]>,
          vectorSeconds,
          bytesPerPosition: bytesPerPosition(context.model, context.options.kvType),
          weightBytes: context.model.info.sizeBytes,
        };
      },
    },
    ...Array.from(
      { length: repetitions },
      (_, i): Unit<ComputePart> => ({
        name: `round ${i + 1} of ${repetitions}`,
        run: async (_, { signal }) => {
          ready ??= await setUp(signal);
          return { seconds: await ready.round() };
        },
      }),
    ),
  ];
};
