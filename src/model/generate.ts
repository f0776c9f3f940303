import type { Edits, GeneratedEdit } from '../hooks/place.js';
import type { InterventionReport } from '../hooks/types.js';
import type { DecodeJob } from '../native/addon.js';
import { XpatchError } from '../util/errors.js';
import { Random } from '../util/random.js';
import { type DecodeTarget, nativePatch, type RowEnd } from './executor.js';
import type { Model } from './model.js';
import type { BuiltRow, PassResult, PassRow, PreparedRow } from './pass.js';
import type { OnProgress } from './types.js';

/** How answers are generated. */
export interface GenerateOptions {
  /** Defaults to 16. */
  maxTokens?: number;
  /** 0 is greedy. Defaults to 0. */
  temperature?: number;
  /** Sampling keeps this many of the best tokens. Defaults to 40. */
  sampleFrom?: number;
  /** Sampling keeps the smallest set of tokens with this much probability. Defaults to 1. */
  topP?: number;
  /** Seed of sampling; row i uses its own stream of it. Defaults to 1. */
  seed?: number;
  /** Texts that end a generation; they are not part of it. */
  stop?: readonly string[];
  /**
   * Keeps the one row of this call, and its answer, in the cache, so that the next call computes only what is new after their
   * common start, as in a chat, whose prompts grow. Aborting then ends the answer (`finish: 'aborted'`) and is not an error.
   * Defaults to false.
   */
  keep?: boolean;
  signal?: AbortSignal;
  /** Called for every new piece of text. A piece holds whole characters, and nothing that may be the start of a stop text. */
  onText?: (row: number, text: string) => void;
  /** Positions decoded of all, as if every row needed `maxTokens`. */
  onProgress?: OnProgress;
}

/** The continuation of a row, with what its prompt pass returned. */
export type Generation<Row = PassRow> = PassResult<Row> & {
  text: string;
  tokens: number[];
  /** `end`: a token of the model that ends an answer or a turn; `stop`: a stop text; `length`: maxTokens, or the positions that the model has; `aborted`: with `keep` only. */
  finish: 'end' | 'stop' | 'length' | 'aborted';
  /** With `keep`: positions of the prompt that were already in the cache. */
  reused?: number;
};

interface Stream {
  index: number;
  tokens: number[];
  bytes: number[];
  text: string;
  /** Control tokens that the text does not show, and where in it they were. */
  hidden: { at: number; control: string }[];
  shown: number;
  finish?: Generation['finish'];
  random: Random;
  edits: readonly GeneratedEdit[];
  reports: InterventionReport[];
  top: NonNullable<PreparedRow['top']>;
  end: RowEnd;
  /** Value of the position counter where the answer begins. */
  start: number;
  /** Position of the first generated token. */
  behind: number;
}

/** Checks the options and gives what `Context.generate` drives: the prompt pass's rows, the token loop, the results. */
export function planGeneration(model: Model, rows: readonly BuiltRow[], options: GenerateOptions) {
  const { maxTokens = 16, temperature = 0, sampleFrom = 40, topP = 1, seed = 1, stop = [] } = options;
  const check = (name: string, ok: boolean, wanted: string, value: unknown) => {
    if (!ok) throw new XpatchError('INVALID_ARGUMENT', `${name} must be ${wanted}, not ${value}.`);
  };
  check('maxTokens', Number.isInteger(maxTokens) && maxTokens >= 1, 'a whole number from 1', maxTokens);
  check('temperature', temperature >= 0 && Number.isFinite(temperature), 'a number from 0', temperature);
  check('sampleFrom', Number.isInteger(sampleFrom) && sampleFrom >= 1, 'a whole number from 1', sampleFrom);
  check('topP', topP > 0 && topP <= 1, 'above 0 and at most 1', topP);
  check(
    'stop',
    stop.every((s) => typeof s === 'string' && s.length > 0),
    'non-empty texts',
    JSON.stringify(stop),
  );

  requireFiring(rows, maxTokens);

  const k = temperature === 0 ? 1 : Math.min(sampleFrom, model.info.nVocab);
  const streams: Stream[] = [];

  return {
    maxTokens,
    passRows: rows.map((row) => ({ ...row, topK: Math.max(row.topK ?? 0, k) })),

    /** Generates for the rows of one wave, whose prompts are in the KV cache. */
    async run(
      members: { row: PreparedRow; index: number; end: RowEnd }[],
      target: DecodeTarget,
      onTokens: (tokens: number) => void,
    ): Promise<void> {
      const wave = members.map(({ row, index, end }): Stream => {
        const random = new Random(seed, 'generate', index);
        const empty = { tokens: [], bytes: [], text: '', hidden: [], shown: 0, reports: [] };
        const { generated: edits, top } = row as PreparedRow & Pick<Stream, 'top'>;
        return { ...empty, index, random, edits, top, end, start: end.counter, behind: row.prompt.length };
      });
      streams.push(...wave);
      const attends = members.some(({ row }) => row.attends);
      let live = wave;
      for (let step = 0; step < maxTokens && live.length; step++) {
        for (const stream of live) accept(stream, sample(stream.top, stream.random, { temperature, topP, k }), step);
        onTokens(live.length);
        live = live.filter((stream) => !stream.finish);
        for (let from = 0; from < live.length; from += target.nUbatch) {
          await advance(live.slice(from, from + target.nUbatch), target, { k, attends });
        }
      }
    },

    /** Ends the answers in progress; false if none has begun. */
    abort(): boolean {
      for (const stream of streams) {
        if (stream.finish) continue;
        stream.finish = 'aborted';
        show(stream, stream.text.length);
      }
      return streams.length > 0;
    },

    /** Tokens of the first row's answer that are in the cache as nothing but themselves. */
    cached(): number[] {
      const [stream] = streams;
      return stream && !stream.edits.length ? stream.tokens.slice(0, stream.end.counter - stream.start) : [];
    },

    /** Generations in the order of the rows. */
    results(passes: PassResult[]): Generation[] {
      const byIndex = new Map(streams.map((stream) => [stream.index, stream]));
      return passes.map((pass, i) => {
        const { text, tokens, reports, finish = 'length' } = byIndex.get(i) as Stream;
        const { top, interventions, ...rest } = pass;
        const given = { ...rest, interventions: [...interventions, ...reports] };
        const { topK } = rows[i] as BuiltRow;
        return { ...given, ...(topK !== undefined && { top: top?.slice(0, topK) ?? [] }), text, tokens, finish };
      });
    },
  };

  /** Takes a new token in: text, stop conditions, streaming. */
  function accept(stream: Stream, token: number, step: number): void {
    if (model.info.hasTokenizer && model.isEnd(token)) {
      stream.finish = 'end';
    } else {
      stream.tokens.push(token);
      const bytes = model.tokenBytes([token]);
      stream.bytes.push(...bytes);
      stream.text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(stream.bytes));
      if (bytes.length === 0) stream.hidden.push({ at: stream.text.length, control: model.detokenize([token]) });
      const end = firstStop(stream, stop);
      if (end !== undefined) {
        stream.text = stream.text.slice(0, end);
        stream.finish = 'stop';
      }
    }
    const full = stream.end.counter >= (model.info.maxPositions ?? Number.POSITIVE_INFINITY);
    if (step === maxTokens - 1 || full) stream.finish ??= 'length';
    show(stream, stream.finish ? stream.text.length : safeLength(stream.text, stop));
  }

  function show(stream: Stream, ready: number): void {
    if (ready <= stream.shown) return;
    options.onText?.(stream.index, stream.text.slice(stream.shown, ready));
    stream.shown = ready;
  }
}

/** Where in an answer's text the first of the stop texts begins; these may hold control tokens, which the text does not show. */
function firstStop({ text, hidden }: Pick<Stream, 'text' | 'hidden'>, stop: readonly string[]): number | undefined {
  let written = '';
  let from = 0;
  const places = hidden.map(({ at, control }) => {
    written += text.slice(from, at);
    from = at;
    written += control;
    return { end: written.length, length: control.length };
  });
  written += text.slice(from);
  const cuts = stop.map((s) => written.indexOf(s)).filter((at) => at >= 0);
  if (cuts.length === 0) return undefined;
  const first = Math.min(...cuts);
  return places.reduce((n, { end, length }) => n - Math.min(length, Math.max(0, first - end + length)), first);
}

/** How much of a text can be shown: not an unfinished character at its end, nor a part that may become a stop text. */
function safeLength(text: string, stop: readonly string[]): number {
  let safe = text.length;
  while (safe > 0 && text[safe - 1] === '\uFFFD') safe--;
  const whole = text.slice(0, safe);
  for (const s of stop) {
    for (let n = Math.min(s.length - 1, whole.length); n > 0; n--) {
      if (whole.endsWith(s.slice(0, n))) safe = Math.min(safe, whole.length - n);
    }
  }
  return safe;
}

/** Refuses interventions whose first generated token is behind the end: the last token of an answer is never decoded. */
export function requireFiring(rows: readonly Edits[], maxTokens: number): void {
  for (const { steps = 'prompt' } of rows.flatMap(({ interventions = [], edges = [] }) => [
    ...interventions,
    ...edges,
  ])) {
    const first = steps === 'prompt' ? 0 : typeof steps === 'object' ? steps.every : 1;
    if (!(first >= maxTokens)) continue; // what is no number is refused where it is placed
    const problem =
      maxTokens === 1
        ? 'With one new token, no generated token is decoded for an intervention to edit'
        : `With ${maxTokens} new tokens, of which the last is not decoded, an intervention at every ${first}th never fires`;
    throw new XpatchError('INTERVENTION_INVALID', `${problem}. Allow at least ${first === 1 ? 'two' : first + 1}.`);
  }
}

/** Decodes the newest token of every stream in one batch. */
async function advance(
  streams: Stream[],
  target: DecodeTarget,
  { k, attends }: { k: number; attends: boolean },
): Promise<void> {
  const n = streams.length;
  const edits = streams.flatMap((stream, row) =>
    stream.edits.filter(({ every }) => stream.tokens.length % every === 0).map((edit) => ({ stream, row, edit })),
  );
  const patches = edits.map(({ row, edit }) => nativePatch([edit], [row]));
  const job: DecodeJob = {
    tokens: Int32Array.from(streams, (s) => s.tokens.at(-1) as number),
    positions: Int32Array.from(streams, (s) => s.end.counter),
    sequences: Int32Array.from(streams, (s) => s.end.seq),
    sequenceCounts: new Int32Array(n).fill(1),
    outputs: new Uint8Array(n).fill(1),
    patches,
    ...(attends && { places: Int32Array.from(streams, (s) => s.behind + s.tokens.length - 1) }),
    top: {
      rows: Int32Array.from({ length: n }, (_, i) => i),
      k,
      ids: new Int32Array(n * k),
      logits: new Float32Array(n * k),
      logsumexp: new Float32Array(n),
    },
  };
  await target.decode(job);
  edits.forEach(({ stream, edit }, i) => {
    const step = stream.tokens.length;
    const delta = patches[i]?.deltas[0] as number;
    stream.reports.push({ ...edit.report, position: stream.behind + step - 1, step, delta });
  });
  for (const stream of streams) stream.end.counter++;
  const top = job.top as NonNullable<DecodeJob['top']>;
  streams.forEach((stream, i) => {
    stream.top = {
      ids: top.ids.subarray(i * k, (i + 1) * k),
      logits: top.logits.subarray(i * k, (i + 1) * k),
      logsumexp: top.logsumexp[i] as number,
    };
  });
}

function sample(
  top: Stream['top'],
  random: Random,
  { temperature, topP, k }: { temperature: number; topP: number; k: number },
): number {
  if (temperature === 0) return top.ids[0] as number;
  const best = top.logits[0] as number;
  const weights = Array.from(top.logits.subarray(0, k), (logit) => Math.exp((logit - best) / temperature));
  const sum = weights.reduce((a, b) => a + b, 0);
  let kept = 0;
  let mass = 0;
  while (kept < weights.length && mass < topP * sum) mass += weights[kept++] as number;
  let pick = random.uniform() * mass;
  for (let i = 0; i < kept; i++) {
    pick -= weights[i] as number;
    if (pick < 0) return top.ids[i] as number;
  }
  return top.ids[kept - 1] as number;
}
