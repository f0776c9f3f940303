import type { Corpus } from '../corpus/corpus.js';
import type { CorpusPrompt } from '../corpus/corpus-file.js';
import { type HookName, ONE_PLACE } from '../hooks/types.js';
import { distancesBetween } from '../stats/clusters.js';
import { FOLDS, linearProbe } from '../stats/linear-probe.js';
import { principalComponents } from '../stats/projection.js';
import { bootstrapInterval, type Estimate, quantile } from '../stats/statistics.js';
import { dot } from '../util/dot.js';
import { XpatchError } from '../util/errors.js';
import { largest } from '../util/extremes.js';
import { Random } from '../util/random.js';

/** How a corpus is summarised. */
export interface CorpusSummaryOptions {
  /** Field of the prompts that a probe reads from the states, such as `continent`. Defaults to no probe. */
  label?: string | undefined;
  /** Of the states looked at, and of the probe's folds. Defaults to 1. */
  seed?: number;
  signal?: AbortSignal;
  /** Layers done, over all hooks. */
  onProgress?: (progress: { done: number; total: number }) => void;
}

/** What is known of the states at one layer. */
export interface LayerSummary {
  readonly layer: number;
  /** Euclidean norm of a state: median, 5 % and 95 %. */
  readonly norm: { readonly median: number; readonly low: number; readonly high: number };
  /** Mean cosine of two states: 0 where they point everywhere, 1 where all point one way (Ethayarajh 2019). */
  readonly cosine: number;
  /** Accuracy of a linear probe in prompts that it has not seen, and of one that was taught shuffled labels. */
  readonly probe?: { readonly accuracy: Estimate; readonly shuffled: Estimate };
  /** Place of each sampled state among the first two principal components, and their shares of the variance; at some layers. */
  readonly pca?: ReturnType<typeof principalComponents>;
}

/** A corpus in numbers, from a sample of its states. */
export interface CorpusSummary {
  readonly label?: {
    readonly field: string;
    /** The most frequent first. */
    readonly values: readonly { readonly value: string; readonly prompts: number }[];
    /** Prompts that have none, or one too rare to be learnt. */
    readonly without: number;
    /** Share of the most frequent value among the sampled states. */
    readonly majority: number;
  };
  /** The prompt of each sampled state. */
  readonly sample: readonly CorpusPrompt[];
  readonly hooks: readonly {
    readonly hook: HookName;
    readonly width: number;
    readonly layers: readonly LayerSummary[];
  }[];
}

/** States that are looked at: a probe's time grows with the cube of their number. */
const SAMPLE = 400;

/**
 * Norms, directions and principal components of the states at every layer, and which of them a label can be read from.
 *
 * @throws {XpatchError} INVALID_ARGUMENT for a label of which fewer than two values are shared by five prompts; DATA_INVALID;
 *   NOT_FINITE; ABORTED
 *
 * @example
 * ```ts
 * const { hooks } = await summariseCorpus(await openCorpus('states'), { label: 'continent' });
 * for (const { layer, probe } of hooks[0]?.layers ?? []) console.log(layer, probe?.accuracy.value);
 * ```
 */
export async function summariseCorpus(corpus: Corpus, options: CorpusSummaryOptions = {}): Promise<CorpusSummary> {
  const { label, seed = 1, signal, onProgress } = options;
  const { hooks, layers } = corpus.manifest;
  const random = new Random(seed, 'corpus');
  const values = label === undefined ? undefined : await labelledPrompts(corpus.prompts(), label);
  const chosen = await choosePrompts(corpus, values, random);
  const labelOf = ({ index }: CorpusPrompt) => values?.known.get(index) ?? '';
  const places = (hook: HookName) => (ONE_PLACE[hook] ? layers.slice(0, 1) : layers);
  const total = hooks.reduce((sum, hook) => sum + places(hook).length, 0);
  let done = 0;
  let sample: CorpusPrompt[] = [];
  const found: CorpusSummary['hooks'][number][] = [];
  for (const hook of hooks) {
    const all = places(hook);
    const drawn = new Set([all[0], all[Math.floor((all.length - 1) / 2)], all.at(-1)]);
    const summaries: LayerSummary[] = [];
    let width = 0;
    for (const layer of all) {
      const states = await readSample(corpus, layer, hook, chosen);
      sample = states.prompts;
      width = states.rows[0]?.length ?? 0;
      summaries.push({
        layer,
        ...directions(states.rows),
        ...(values && { probe: await probe(states, labelOf, seed, signal) }),
        ...(drawn.has(layer) &&
          states.rows.length > 2 && {
            pca: principalComponents(await distancesBetween(states.rows, { signal })),
          }),
      });
      done++;
      onProgress?.({ done, total });
    }
    found.push({ hook, width, layers: summaries });
  }
  if (!values || label === undefined) return { sample, hooks: found };
  const counts = new Map<string, number>();
  for (const prompt of sample) counts.set(labelOf(prompt), (counts.get(labelOf(prompt)) ?? 0) + 1);
  return {
    label: {
      field: label,
      values: values.counts,
      without: corpus.length - values.known.size,
      majority: largest([...counts.values()]) / sample.length,
    },
    sample,
    hooks: found,
  };
}

/** The value of each prompt that has one; values of fewer prompts than there are folds are left out. */
export async function labelledPrompts(prompts: AsyncIterable<Pick<CorpusPrompt, 'index' | 'fields'>>, field: string) {
  const all = new Map<number, string>();
  const fields = new Set<string>();
  for await (const prompt of prompts) {
    for (const name of Object.keys(prompt.fields)) fields.add(name);
    const value = prompt.fields[field];
    if (['string', 'number', 'boolean'].includes(typeof value) && value !== '') all.set(prompt.index, String(value));
  }
  const sizes = new Map<string, number>();
  for (const value of all.values()) sizes.set(value, (sizes.get(value) ?? 0) + 1);
  const common = [...sizes].filter(([, n]) => n >= FOLDS).sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  if (common.length < 2) {
    const problem = `The field ${JSON.stringify(field)} has ${common.length} values that at least ${FOLDS} prompts share`;
    const wayOut = `A probe tells two or more apart; fields: ${[...fields].join(', ') || 'none'}`;
    throw new XpatchError('INVALID_ARGUMENT', `${problem}. ${wayOut}.`);
  }
  const known = new Map([...all].filter(([, value]) => (sizes.get(value) as number) >= FOLDS));
  return { known, counts: common.map(([value, prompts]) => ({ value, prompts })) };
}

/** Rows of the sampled prompts, counted from the first row of each. */
async function choosePrompts(
  corpus: Corpus,
  values: Awaited<ReturnType<typeof labelledPrompts>> | undefined,
  random: Random,
): Promise<Map<number, number[]>> {
  const sizes = new Map<number, number>();
  for await (const { index, rows } of corpus.prompts()) {
    if (rows[1] > rows[0] && (values?.known.has(index) ?? true)) sizes.set(index, rows[1] - rows[0]);
  }
  const prompts = random.sample([...sizes.keys()], Math.min(SAMPLE, sizes.size)).sort((a, b) => a - b);
  const each = Math.floor(SAMPLE / prompts.length);
  return new Map(
    prompts.map((index) => {
      const size = sizes.get(index) as number;
      return [index, random.sample([...Array(size).keys()], Math.min(each, size))];
    }),
  );
}

interface Sample {
  readonly prompts: CorpusPrompt[];
  readonly rows: Float32Array[];
}

async function readSample(
  corpus: Corpus,
  layer: number,
  hook: HookName,
  chosen: ReadonlyMap<number, readonly number[]>,
): Promise<Sample> {
  const sample: Sample = { prompts: [], rows: [] };
  for await (const { prompts, rows } of corpus.rows(layer, hook, ({ index }) => chosen.has(index))) {
    for (let first = 0; first < rows.length; ) {
      const prompt = prompts[first] as CorpusPrompt;
      for (const row of chosen.get(prompt.index) ?? []) {
        sample.prompts.push(prompt);
        sample.rows.push(rows[first + row] as Float32Array);
      }
      first += prompt.rows[1] - prompt.rows[0];
    }
  }
  return sample;
}

function directions(rows: readonly Float32Array[]): Pick<LayerSummary, 'norm' | 'cosine'> {
  const norms = Float64Array.from(rows, (row) => Math.sqrt(dot(row, row)));
  const sum = new Float64Array(rows[0]?.length ?? 0);
  for (const [i, row] of rows.entries()) {
    const scale = (norms[i] as number) > 0 ? 1 / (norms[i] as number) : 0;
    for (let d = 0; d < sum.length; d++) sum[d] = (sum[d] as number) + (row[d] as number) * scale;
  }
  const n = rows.length;
  const cosine = n > 1 ? (dot(sum, sum) - n) / (n * (n - 1)) : 1;
  norms.sort();
  return { norm: { median: quantile(norms, 0.5), low: quantile(norms, 0.05), high: quantile(norms, 0.95) }, cosine };
}

/**
 * What a prompt is, wherever it stands in the corpus: rows that are the same prompt have the same states, so a probe must not learn from
 * one and be tested on another. The rows of pictures have no tokens; what they are of is known by the field that named them.
 */
function identityOf({ index, tokens, fields }: CorpusPrompt): string {
  return JSON.stringify([tokens, ...(tokens.some((token) => token < 0) ? [fields.image ?? index] : [])]);
}

/** Labels are shuffled among prompts, not among positions of one prompt or rows of the same. */
async function probe(
  { prompts, rows }: Sample,
  labelOf: (prompt: CorpusPrompt) => string,
  seed: number,
  signal: AbortSignal | undefined,
): Promise<NonNullable<LayerSummary['probe']>> {
  const groups = prompts.map(identityOf);
  const labels = prompts.map(labelOf);
  const own = new Map(groups.map((group, i) => [group, labels[i] as string]));
  const dealt = new Random(seed, 'shuffled').sample([...own.values()]);
  const other = new Map([...own.keys()].map((group, i) => [group, dealt[i] as string]));
  const shuffled = groups.map((group) => other.get(group) as string);
  const right = await linearProbe(rows, [labels, shuffled], groups, { seed, signal });
  const [accuracy, control] = right.map((hits) =>
    bootstrapInterval(
      hits.map((hit, i) => ({ task: '', seed, item: groups[i] as string, share: true, value: Number(hit) })),
    ),
  );
  return { accuracy: accuracy as Estimate, shuffled: control as Estimate };
}
