import { bootstrapInterval, type Estimate } from '../stats/statistics.js';
import type { Modality } from '../tasks/prompts.js';
import { TOP_CLASSES, type TopClass } from '../tasks/token-classes.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import type { EvolutionCell, PromptReading } from './evolution.js';

/** Mean probability of one class among the classes of its curves, at each layer. */
export interface ClassCurve {
  readonly name: string;
  readonly points: readonly Estimate[];
}

/** Curves of one task and modality over a choice of classes. */
export interface ClassCurves {
  readonly task: string;
  readonly modality: Modality;
  readonly curves: readonly ClassCurve[];
  /** Prompts that the curves are means of, and how many were passed over because classes share a token in them. */
  readonly n: number;
  readonly passedOver: number;
  /** Classes of the choice that have no curve here, and why. */
  readonly without: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * Softmax over the logits of the classes alone, prompt by prompt and layer by layer, then the mean over prompts with a 95 %
 * bootstrap band (`bootstrapInterval`; prompts that end in the same item go together).
 *
 * A class that has several tokens enters with the highest of their logits. `other` has many (`EvolutionCell.otherTokens`), so
 * it is favoured: of k equal, independent, normal logits of standard deviation s the highest is about s * sqrt(2 ln k) above
 * their mean. Compare it over layers and tasks rather than with classes of one token, or leave it out.
 *
 * With `other` among the classes, an input token that is itself an answer has no curve of its own: it is in `other`.
 *
 * @param names at least two of the cell's classes
 * @throws {XpatchError} INVALID_ARGUMENT, ABORTED
 */
export async function classCurves(
  cell: EvolutionCell,
  names: readonly string[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<ClassCurves> {
  const { task, modality } = cell;
  const unknown = names.find((name) => !cell.classes.includes(name));
  if (unknown !== undefined) {
    const message = `There is no class ${JSON.stringify(unknown)}. The run has ${cell.classes.join(', ')}.`;
    throw new XpatchError('INVALID_ARGUMENT', message);
  }
  const without = names.flatMap((name) => {
    const reason =
      name === 'input' && names.includes('other') && cell.input.answer
        ? 'the token is itself an answer of the task'
        : Object.hasOwn(cell.missing, name) && cell.missing[name];
    return reason ? [{ name, reason }] : [];
  });
  const present = names.filter((name) => !without.some((entry) => entry.name === name));
  if (present.length < 2) {
    const why = without.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
    throw new XpatchError('INVALID_ARGUMENT', `${task}, ${modality}: fewer than two classes have tokens (${why}).`);
  }
  const tellsApart = (reading: PromptReading) =>
    !reading.collisions.some(([a, b]) => present.includes(a) && present.includes(b));
  const used = cell.readings.filter(tellsApart).slice(0, cell.prompts);
  const passedOver = cell.readings.slice(0, cell.prompts).filter((reading) => !tellsApart(reading)).length;

  const shares = used.map((reading) =>
    softmaxByLayer(present.map((name) => reading.logits[name] as readonly number[])),
  );
  const pace = new Pace(signal);
  const curves: ClassCurve[] = [];
  for (const [c, name] of present.entries()) {
    const points: Estimate[] = [];
    for (let layer = 0; layer < (shares[0]?.length ?? 0); layer++) {
      if (pace.due()) await pace.rest(); // a band is 2000 resamples
      const observations = used.map(({ seed, query }, i) => {
        const value = shares[i]?.[layer]?.[c] as number;
        return { task, seed, item: query, share: true, value };
      });
      points.push(bootstrapInterval(observations));
    }
    curves.push({ name, points });
  }
  return { task, modality, curves, n: used.length, passedOver, without };
}

/** @param logits [class][layer] @returns probabilities [layer][class] */
export function softmaxByLayer(logits: readonly (readonly number[])[]): number[][] {
  return (logits[0] ?? []).map((_, layer) => {
    const row = logits.map((one) => one[layer] as number);
    const highest = Math.max(...row);
    const weights = row.map((logit) => Math.exp(logit - highest));
    const sum = weights.reduce((a, b) => a + b, 0);
    return weights.map((weight) => weight / sum);
  });
}

/**
 * Where one mean curve rises over another for good: the place from which on it is above it up to the last layer, linear
 * between the layer before and the first one above. The first layer when it is above everywhere; undefined when it is not
 * above at the last layer.
 */
export function crossing(over: readonly number[], under: readonly number[]): number | undefined {
  const gap = over.map((value, layer) => value - (under[layer] as number));
  let layer = gap.length;
  while (layer > 0 && (gap[layer - 1] as number) > 0) layer--;
  if (layer === gap.length) return undefined;
  if (layer === 0) return 0;
  const [before, after] = [gap[layer - 1] as number, gap[layer] as number];
  return layer - 1 + before / (before - after);
}

/** Share of the layers at which each curve is the highest (ties: the first one). */
export function leadingShares(curves: readonly ClassCurve[]): Map<string, number> {
  const layers = curves[0]?.points.length ?? 0;
  const shares = new Map(curves.map(({ name }) => [name, 0]));
  for (let layer = 0; layer < layers; layer++) {
    const best = curves.reduce((a, b) => (valueAt(b, layer) > valueAt(a, layer) ? b : a));
    shares.set(best.name, (shares.get(best.name) as number) + 1 / layers);
  }
  return shares;
}

const valueAt = (curve: ClassCurve, layer: number) => (curve.points[layer] as Estimate).value;

/** How often each class is the best token of the whole vocabulary at a layer, with up to five of its most frequent tokens. */
export function topClasses(
  cells: readonly EvolutionCell[],
  layer: number,
): { label: TopClass; count: number; examples: string[] }[] {
  const tops = cells.flatMap((cell) => cell.readings.slice(0, cell.prompts).flatMap(({ top }) => top[layer] ?? []));
  return TOP_CLASSES.map((label) => {
    const texts = tops.filter(({ is }) => is === label).map(({ text }) => text);
    const counts = new Map<string, number>();
    for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
    const frequent = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 5);
    return { label, count: texts.length, examples: frequent.map(([text]) => text) };
  });
}

/** An early, a middle and a late layer: a quarter and five eighths of the depth, and the last one. */
export function defaultPieLayers(nLayers: number): number[] {
  const last = nLayers - 1;
  return [...new Set([Math.round(last / 4), Math.round((5 * last) / 8), last])];
}
