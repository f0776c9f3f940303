import { LayerChoice } from '../../experiment/layer-choice.js';
import type { Experiment, ResultLine, RunStore } from '../../experiment/types.js';
import { SCORES, type Score, type Table } from '../../stats/tables.js';
import { Pace } from '../../util/pace.js';
import type { Block, Report, TextTable } from '../report.js';
import { cosineBlocks } from './cosine.js';
import { conditionBars, effectHeadline, effectPairs, effectSentence, pairedQueries, pairTable } from './effect.js';
import { examplesBlocks, strengthBlocks, sweepBlocks } from './figures.js';
import { arrange, type ExperimentLines } from './lines.js';
import { paperBlocks } from './paper.js';
import {
  conflictTable,
  differencesTable,
  divergenceTable,
  matrixTable,
  noisyTable,
  scoresOf,
  scoreTable,
} from './tables.js';
import { pairedExamples, workedExamples } from './worked-examples.js';

/** What the report of a run says besides its results. */
export interface ExperimentReportOptions {
  /** What has to be said with the results, e.g. what the model was trained on. */
  readonly notes: readonly string[];
  readonly provenance: Report['provenance'];
  /** Title of the report. Defaults to the experiment's. */
  readonly title?: string;
  /** The run's vectors, by the names that its lines have, for the cosines between two models. Defaults to none. */
  readonly loadVector?: RunStore['loadVector'];
  readonly signal?: AbortSignal;
}

/**
 * Everything that an experiment has to show, out of its lines alone: the same lines in whatever order give the same report.
 * Blocks of which a run has no data are left out, so an interrupted run has a report too.
 *
 * @throws {XpatchError} ABORTED
 */
export async function experimentReport(
  experiment: Experiment,
  lines: readonly ResultLine[],
  { notes: given, provenance, title = experiment.title, loadVector, signal }: ExperimentReportOptions,
): Promise<Report> {
  const arranged = arrange(experiment, lines);
  const notes = [...given, ...layerDoubts(experiment, arranged.validation)];
  // Resampling takes a while: whoever waits gets a turn in between.
  const pace = new Pace(signal);
  const scores = scoresOf(arranged.test);
  const blocks: Block[] = [];
  let strict: Table | undefined;
  for (const score of scores) {
    const table = await scoreTable(experiment, arranged, score, notes, pace);
    if (score === 'strict') strict = table;
    const heading = score === 'probability' ? 'Probability of the expected answer' : `Accuracy, ${score} score`;
    const isOwn = !SCORES.some((name) => name === score);
    blocks.push({ kind: 'table', name: isOwn ? `score-${score}` : score, heading, table });
  }
  blocks.push(...paperBlocks(experiment.preset));
  /** A table of each score, where the experiment has it. */
  const add = async (name: string, heading: string, make: (score: Score) => Promise<Table | TextTable | undefined>) => {
    for (const score of scores) {
      const table = await make(score);
      if (table) blocks.push({ kind: 'table', name: `${name}-${score}`, heading: `${heading}, ${score} score`, table });
    }
  };
  await add('differences', 'Differences', (score) => differencesTable(experiment, arranged, score, pace));
  await add('matrix', 'Specification by query', (score) => matrixTable(experiment, arranged, score, pace));
  await add('conflict', 'Whom the answer follows', (score) => conflictTable(experiment, arranged, score, pace));
  await add('noisy', 'Noisy instructions', (score) => noisyTable(experiment, arranged, score, pace));
  blocks.push(...(await examplesBlocks(experiment, arranged, pace)));
  blocks.push(...(await strengthBlocks(experiment, arranged, pace)));
  const kl = divergenceTable(arranged);
  if (kl) blocks.push({ kind: 'table', name: 'divergence', heading: 'Divergence of the next token', table: kl });
  if (loadVector) blocks.push(...(await cosineBlocks(experiment, arranged.tested, loadVector)));
  for (const stage of ['test', 'validation'] as const)
    blocks.push(...(await sweepBlocks(experiment, arranged, stage, pace)));
  const { sentence, headline, blocks: first } = effectOf(experiment, arranged, strict);
  const rest = first.some(({ kind }) => kind === 'bars') ? blocks.map((block) => ({ ...block, detail: true })) : blocks;
  return {
    title,
    introduction: sentence === undefined ? [] : [sentence],
    headline,
    blocks: [...first, ...rest],
    caveats: notes,
    provenance,
  };
}

/** What the page begins with: the effect in a sentence, every condition, the patch next to the prompt, and examples. */
function effectOf(experiment: Experiment, arranged: ExperimentLines, strict: Table | undefined) {
  const blocks: Block[] = strict ? conditionBars(experiment, arranged, strict) : [];
  const pairs = effectPairs(experiment, arranged).map((pair) => ({
    pair,
    queries: pairedQueries(pair, arranged.test),
  }));
  for (const { pair, queries } of pairs) {
    if (queries.length === 0) continue;
    const suffix = pairs.length < 2 ? '' : `-layer-${pair.patch.layer}`;
    const heading = `${pair.patch.name} and ${pair.prompt.name}`;
    blocks.push({ kind: 'table', name: `patch-and-prompt${suffix}`, heading, table: pairTable(pair, queries) });
  }
  // No one layer can speak for several, and choosing one by its answers would be choosing by the test.
  const [only, another] = pairs;
  const single = another === undefined ? only : undefined;
  const examples = single?.queries.length
    ? pairedExamples(experiment, arranged, single.pair, single.queries)
    : workedExamples(experiment, arranged);
  const caption = single?.queries.length ? 'Drawn at random from each cell of the table.' : undefined;
  const named = { name: 'examples', heading: 'Worked examples', ...(caption !== undefined && { caption }) };
  if (examples.length > 0) blocks.push({ kind: 'examples', ...named, examples });
  if (single === undefined || strict === undefined) return { blocks };
  return {
    blocks,
    sentence: effectSentence(experiment, single.pair, strict),
    headline: effectHeadline(single.pair, strict),
  };
}

function layerDoubts(experiment: Experiment, validation: readonly ResultLine[]): string[] {
  if (experiment.layers !== 'validation') return [];
  const choice = new LayerChoice(experiment);
  for (const line of validation) choice.add(line);
  const doubt = choice.doubt();
  return doubt === undefined ? [] : [doubt];
}
