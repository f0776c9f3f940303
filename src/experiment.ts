// `xpatch/experiment`: experiments with run folders, the studies of the paper, the tools that take a model apart, and the statistics behind them.
export { type AblatedPart, type AblateOptions, type Ablation, ablate, type Item } from './circuits/ablate.js';
export {
  type Attribution,
  type AttributionOptions,
  attributeLogits,
  type LogitPart,
} from './circuits/attribution.js';
export {
  type CorruptPrompt,
  type FunctionVectorOptions,
  functionVector,
  type HeadEffects,
  headEffects,
} from './circuits/function-vector.js';
export { type Head, HeadMap } from './circuits/heads.js';
export { divergenceFrom, type MeasureOptions } from './circuits/measure.js';
export { type HeadPatching, patchHeads } from './circuits/patch-heads.js';
export { type TaskHeadOptions, taskHeadEffects } from './circuits/task-heads.js';
export { type CorpusInput, type CorpusOptions, captureCorpus } from './corpus/capture-corpus.js';
export { Corpus, type CorpusRows, openCorpus } from './corpus/corpus.js';
export type {
  CorpusManifest,
  CorpusPositions,
  CorpusPrompt,
  CorpusRequest,
  CorpusShard,
} from './corpus/corpus-file.js';
export { type Comparison, compareConditions, pairsOf } from './experiment/comparisons.js';
export { experimentOf, type LoadedExperiment, loadExperiment } from './experiment/config.js';
export { fitToModel } from './experiment/fit.js';
export { memoryStore } from './experiment/memory-store.js';
export { mergeShards } from './experiment/merge.js';
export { type PlanOptions, planExperiment } from './experiment/plan.js';
export { PRESETS, type Preset } from './experiment/presets.js';
export { type ExperimentResult, parallelism, type RunOptions, runExperiment } from './experiment/run.js';
export { RunFolder } from './experiment/run-folder.js';
export { type OptionScore, type OptionsToScore, scoreOptions } from './experiment/score-options.js';
export { type Scorer, scoreLines } from './experiment/scorers.js';
export { lenientMatch, majorityAnswer, type ScoringOptions, strictMatch } from './experiment/scoring.js';
export { parseShard, type Shard } from './experiment/shard.js';
export {
  CONTROLS,
  type Condition,
  type Control,
  type Experiment,
  type ExperimentProgress,
  keyOf,
  type Plan,
  type QueryKey,
  type ResultLine,
  type RunLine,
  type RunStore,
  type StudyLine,
  type VectorSpec,
} from './experiment/types.js';
export { type AskOptions, askAgain, type Check, type CheckedRun, checkRun } from './experiment/verify.js';
export { type FitOptions, fitTunedLens } from './lens/fit-tuned-lens.js';
export { type ExperimentReportOptions, experimentReport } from './report/experiment/report.js';
export { checkTables, writeRunReport } from './report/experiment/run.js';
export { type FolderRun, type FolderRunOptions, runInFolder } from './report/experiment/run-experiment.js';
export {
  type ClusterScore,
  type Distances,
  distancesBetween,
  nearest,
  purities,
  silhouettes,
} from './stats/clusters.js';
export {
  compareFamily,
  type FamilyTest,
  holm,
  type PermutationTest,
  permutationTest,
} from './stats/permutation.js';
export { principalComponents, type TsneOptions, tsne } from './stats/projection.js';
export {
  bootstrapInterval,
  differenceInterval,
  type Estimate,
  type Interval,
  type Observation,
  type SeedSpread,
  spreadOverSeeds,
  wilsonInterval,
} from './stats/statistics.js';
export {
  type AccuracyTableOptions,
  accuracyTable,
  type Cell,
  observationsOf,
  type Score,
  type ScoredQuery,
  type Table,
} from './stats/tables.js';
export {
  type ClassCurve,
  type ClassCurves,
  classCurves,
  crossing,
  leadingShares,
  topClasses,
} from './studies/class-curves.js';
export {
  type ComputeOptions,
  type ComputePart,
  type ComputeResult,
  runCompute,
  type WayCost,
} from './studies/compute.js';
export {
  type CorpusSummary,
  type CorpusSummaryOptions,
  type LayerSummary,
  summariseCorpus,
} from './studies/corpus-summary.js';
export {
  type DecodedLayer,
  type Decoding,
  type DecodingOptions,
  decodeVector,
  runDecodings,
  type SavedVectorOptions,
} from './studies/decodings.js';
export {
  type EmbeddedPrompt,
  type EmbeddingOptions,
  type EmbeddingPart,
  type EmbeddingResult,
  type EmbeddingSpace,
  type Measure,
  runEmbedding,
} from './studies/embedding.js';
export {
  type EvolutionCell,
  type EvolutionOptions,
  type PromptReading,
  runEvolution,
} from './studies/evolution.js';
export { EVOLUTION_CLASSES, type EvolutionClass, type WordClass } from './studies/evolution-classes.js';
export { type HeadsCell, type HeadsOptions, type ModalityHeads, runHeads } from './studies/heads.js';
export {
  type LensPromptOptions,
  type LensPrompts,
  taskLensPrompts,
  textLensPrompts,
} from './studies/lens-prompts.js';
export { evaluateLens, type LensQuality, type LensQualityOptions } from './studies/lens-quality.js';
export type { StudyEvents, TaskPromptOptions } from './studies/study.js';
export { answersCollide } from './tasks/answers.js';
export { rivalAnswers, rivalTask } from './tasks/conflict.js';
export { promptFormat } from './tasks/model-format.js';
export { swapLetters } from './tasks/noise.js';
export type { PromptContent, PromptFormat } from './tasks/prompt-format.js';
export { baselineShots, type VectorPrompt, vectorPrompts } from './tasks/prompts.js';
export type { PromptTemplate, Template } from './tasks/template.js';
export { firstTokens, TOP_CLASSES, type TopClass, wordTokens } from './tasks/token-classes.js';
