import type { LoadedExperiment } from '../experiment/config.js';
import type { Experiment, ExperimentProgress, Plan } from '../experiment/types.js';
import type { ModelIdentity } from '../model/types.js';
import type { FolderRunOptions } from '../report/experiment/run-experiment.js';
import type { Bars, TextTable, WorkedExample } from '../report/report.js';
import type { Table } from '../stats/tables.js';
import type { ModelArguments } from './options.js';

/** What the process with the model is to do. */
export interface EvalJob extends Pick<FolderRunOptions, 'shard' | 'layerFrom' | 'queue'> {
  readonly model: ModelArguments;
  /** Bytes that the context may take; undefined for no bound. */
  readonly memory?: number;
  readonly loaded: LoadedExperiment;
  /** Folder of the run; without one, only the plan is made. */
  readonly folder?: string;
  /** Command line that resumes the run. */
  readonly command: string;
  /** How many processes have already crashed on it. Defaults to none. */
  readonly crashes?: number;
}

/** What a plan costs, measured on this machine in a few seconds. */
export interface Estimate {
  readonly seconds: number;
  /** Bytes of the finished run, without its report. */
  readonly disk: number;
  /** Items at a time. */
  readonly parallel: number;
  /** What the time consists of, for one item at a time. */
  readonly positionsPerSecond: number;
  readonly newTokensPerSecond: number;
  readonly secondsPerPicture?: number;
}

/** The outcome of a finished run. */
export interface EvalResult {
  readonly folder: string;
  /** The page; a shard to be merged has none. */
  readonly report?: string;
  readonly model: ModelIdentity;
  readonly experiment: Experiment;
  /** Where patches were written in the test; empty if nothing was patched. */
  readonly layers: readonly number[];
  readonly tables: readonly { readonly name: string; readonly heading: string; readonly table: Table | TextTable }[];
  readonly examples: readonly WorkedExample[];
  /** Files. */
  readonly figures: readonly string[];
  /** The effect in a sentence, the bars of the conditions, and the caveats: for people. */
  readonly introduction: readonly string[];
  readonly bars?: Bars;
  readonly caveats: readonly string[];
}

export type ParentMessage = { readonly type: 'job'; readonly job: EvalJob } | { readonly type: 'stop' };

export type ChildMessage =
  | { readonly type: 'doing'; readonly what: string; readonly fraction?: number; readonly detail?: string }
  | { readonly type: 'note'; readonly text: string }
  | {
      readonly type: 'plan';
      readonly plan: Plan;
      readonly experiment: Experiment;
      readonly estimate: Estimate;
      /** What was left out of the experiment. */
      readonly notes: readonly string[];
    }
  | {
      readonly type: 'start';
      readonly experiment: Experiment;
      readonly plan: Plan;
      /** Lines that are there already. */
      readonly known: number;
      /** How many of them were just taken from `layerFrom`. */
      readonly taken: number;
      /** Items at a time. */
      readonly parallel: number;
    }
  | { readonly type: 'progress'; readonly progress: ExperimentProgress }
  /** Lines, or a vector, that are safe from a crash. */
  | { readonly type: 'saved'; readonly lines: number }
  | { readonly type: 'done'; readonly result: EvalResult }
  | {
      readonly type: 'error';
      /** undefined for a bug. */
      readonly code?: string;
      readonly message: string;
      readonly stack?: string;
    };
