import type { Experiment, ResultLine, RunStore } from '../evaluation/experiment/types.js';
import { accuracyTable, type Score } from '../evaluation/tables.js';
import { Pace } from '../lens/pace.js';
import { cosineBlocks } from './cosine.js';
import { examplesBlocks, sweepBlocks, testLayerBlocks } from './experiment-figures.js';
import { arrange, type ExperimentLines, queriesOf } from './experiment-lines.js';
import { conflictTables, differencesTable, matrixTable, scoresOf, scoreTable, tasksOf } from './experiment-tables.js';
import { paperBlocks } from './paper.js';
import type { Block, Report } from './report.js';
import { workedExamples } from './worked-examples.js';

export interface ExperimentReportOptions {
  /** What has to be said beside the results, e.g. what the model was trained on. */
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
  { notes, provenance, title = experiment.title, loadVector, signal }: ExperimentReportOptions,
): Promise<Report> {
  const arranged = arrange(experiment, lines);
  const pace = new Pace(signal);
  const blocks: Block[] = [];
  // Resampling takes a while: whoever waits gets a turn between two blocks.
  const add = async (make: () => readonly Block[] | Promise<readonly Block[]>) => {
    blocks.push(...(await make()));
    await pace.rest();
  };
  const scores = scoresOf(arranged.test);
  for (const score of scores) await add(() => [scoreBlock(experiment, arranged, score, notes)]);
  for (const score of scores) await add(() => differencesBlocks(experiment, arranged, score));
  await add(() => paperBlocks(experiment.name));
  for (const score of scores) await add(() => matrixBlocks(experiment, arranged, score));
  await add(() => conflictBlocks(experiment, arranged));
  for (const score of scores) await add(() => noisyBlocks(experiment, arranged, score));
  await add(() => examplesBlocks(experiment, arranged));
  if (loadVector) await add(() => cosineBlocks(experiment, arranged.test, loadVector));
  await add(() => testLayerBlocks(experiment, arranged));
  await add(() => sweepBlocks(experiment, arranged));
  await add(() => exampleBlocks(experiment, arranged));
  return { title, introduction: notes, blocks, provenance };
}

function scoreBlock(experiment: Experiment, arranged: ExperimentLines, score: Score, notes: readonly string[]): Block {
  const table = scoreTable(experiment, arranged, score, notes);
  const heading = score === 'probability' ? 'Probability of the expected answer' : `Accuracy, ${score} score`;
  return { kind: 'table', name: score, heading, table };
}

function differencesBlocks(experiment: Experiment, arranged: ExperimentLines, score: Score): Block[] {
  const table = differencesTable(experiment, arranged, score);
  return table ? [{ kind: 'table', name: `differences-${score}`, heading: `Differences, ${score} score`, table }] : [];
}

function matrixBlocks(experiment: Experiment, arranged: ExperimentLines, score: Score): Block[] {
  const table = matrixTable(experiment, arranged, score);
  return table
    ? [{ kind: 'table', name: `matrix-${score}`, heading: `Specification by query, ${score} score`, table }]
    : [];
}

function conflictBlocks(experiment: Experiment, arranged: ExperimentLines): Block[] {
  return conflictTables(experiment, arranged).map(
    ({ score, table }): Block => ({
      kind: 'table',
      name: `conflict-${score}`,
      heading: `Whom the answer follows, ${score} score`,
      table,
    }),
  );
}

/** Instructions with letters swapped, beside the clean one. */
function noisyBlocks(experiment: Experiment, { test, rows }: ExperimentLines, score: Score): Block[] {
  const conditions = experiment.conditions
    .filter(({ kind, spec, control, foreign }) => kind === 'patch' && spec === 'instruction' && !control && !foreign)
    .filter(({ name }) => rows.includes(name))
    .sort((a, b) => (a.swaps ?? 0) - (b.swaps ?? 0));
  if (!conditions.some(({ swaps = 0 }) => swaps > 0)) return [];
  const table = accuracyTable(test, {
    title: `Vectors of noisy instructions on ${queriesOf(experiment)} queries (${score} score)`,
    score,
    conditions: conditions.map(({ name }) => name),
    tasks: tasksOf(experiment, test),
    notes: ['Swaps of neighbouring letters in the instruction that the vector is read from.'],
  });
  return [{ kind: 'table', name: `noisy-${score}`, heading: `Noisy instructions, ${score} score`, table }];
}

function exampleBlocks(experiment: Experiment, arranged: ExperimentLines): Block[] {
  const examples = workedExamples(experiment, arranged);
  return examples.length > 0 ? [{ kind: 'examples', name: 'examples', heading: 'Worked examples', examples }] : [];
}
