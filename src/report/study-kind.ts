import type { Study } from '../studies/study.js';
import type { Block, Report } from './report.js';

/** What the report of a study says beside its results. */
export interface AboutStudy extends Pick<Report, 'title' | 'provenance'> {
  /** What has to be said beside the results, e.g. what the model was trained on. */
  readonly notes: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** A study as the folder of a run has it. */
export interface StudyKind<Options extends object, Result extends object> {
  readonly units: Study<Options, Result>;
  /** Whether doing a part again gives the same. Defaults to true; times do not. */
  readonly repeatable?: boolean;
  readonly report: (results: readonly Result[], options: Options, about: AboutStudy) => Report | Promise<Report>;
}

/** The report of a study that says in sentences, computed from its results, what they show. */
export function studyReport(
  { title, provenance, notes }: AboutStudy,
  statements: readonly string[],
  blocks: readonly Block[],
): Report {
  return { title, provenance, headline: statements[0], introduction: [...statements, ...notes], blocks };
}
