// The public interface: what is not exported here may change without notice.
export {
  CONVERTED_ARCHITECTURES,
  type Conversion,
  type ConvertedFamily,
  type ConvertedFile,
  type ConvertOptions,
  convertCheckpoint,
} from './convert/convert.js';
export { CONVERSION_TYPES, type ConversionType } from './convert/tensor-types.js';
export { ERROR_CODES, XpatchError, type XpatchErrorCode } from './errors.js';
export {
  type ClassCurve,
  type ClassCurves,
  classCurves,
  crossing,
  leadingShares,
  topClasses,
} from './evaluation/class-curves.js';
export {
  type ClusterScore,
  type Distances,
  distancesBetween,
  nearest,
  purities,
  silhouettes,
} from './evaluation/clusters.js';
export { type Comparison, compareConditions, pairsOf } from './evaluation/comparisons.js';
export { type ComputeOptions, type ComputeResult, runCompute, type WayCost } from './evaluation/compute.js';
export {
  type DecodedLayer,
  type Decoding,
  type DecodingEvents,
  type DecodingOptions,
  decodeVector,
  runDecodings,
} from './evaluation/decodings.js';
export {
  type EmbeddedPrompt,
  type EmbeddingEvents,
  type EmbeddingOptions,
  type EmbeddingResult,
  type EmbeddingSpace,
  type Measure,
  runEmbedding,
} from './evaluation/embedding.js';
export {
  type EvolutionCell,
  type EvolutionEvents,
  type EvolutionOptions,
  type PromptReading,
  runEvolution,
} from './evaluation/evolution.js';
export { EVOLUTION_CLASSES, type EvolutionClass, type WordClass } from './evaluation/evolution-classes.js';
export { experimentOf, type LoadedExperiment, loadExperiment } from './evaluation/experiment/config.js';
export { fitToModel } from './evaluation/experiment/fit.js';
export { memoryStore } from './evaluation/experiment/memory-store.js';
export { mergeShards } from './evaluation/experiment/merge.js';
export { type PlanOptions, planExperiment } from './evaluation/experiment/plan.js';
export { PRESETS, type Preset } from './evaluation/experiment/presets.js';
export { type ExperimentResult, parallelism, type RunOptions, runExperiment } from './evaluation/experiment/run.js';
export { type Scorer, scoreLines } from './evaluation/experiment/scorers.js';
export { parseShard, type Shard } from './evaluation/experiment/shard.js';
export { ExperimentRun } from './evaluation/experiment/store.js';
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
  type RunStore,
  type VectorSpec,
} from './evaluation/experiment/types.js';
export { type AskOptions, askAgain, type Check, type CheckedRun, checkRun } from './evaluation/experiment/verify.js';
export { type ExtractOptions, extractTaskVector } from './evaluation/extract.js';
export {
  type LensPromptOptions,
  type LensPrompts,
  taskLensPrompts,
  textLensPrompts,
} from './evaluation/lens-prompts.js';
export { evaluateLens, type LensQuality, type LensQualityOptions } from './evaluation/lens-quality.js';
export {
  compareFamily,
  type FamilyTest,
  holm,
  type PermutationTest,
  permutationTest,
} from './evaluation/permutation.js';
export { principalComponents, type TsneOptions, tsne } from './evaluation/projection.js';
export { type Manifest, RunFolder } from './evaluation/run-folder.js';
export { lenientMatch, majorityAnswer, type ScoringOptions, strictMatch } from './evaluation/scoring.js';
export {
  bootstrapInterval,
  differenceInterval,
  type Estimate,
  type Interval,
  type Observation,
  type SeedSpread,
  spreadOverSeeds,
  wilsonInterval,
} from './evaluation/statistics.js';
export { type Sweep, type SweepOptions, type SweptLayer, sweepLayers } from './evaluation/sweep.js';
export {
  type AccuracyTableOptions,
  accuracyTable,
  type Cell,
  observationsOf,
  type Score,
  type ScoredQuery,
  type Table,
} from './evaluation/tables.js';
export { firstTokens, TOP_CLASSES, type TopClass, wordTokens } from './evaluation/token-classes.js';
export { finalNorm } from './lens/final-norm.js';
export { type FitOptions, fitTunedLens } from './lens/fit-tuned-lens.js';
export { type Lens, type LensCell, type LensOptions, logitLens } from './lens/logit-lens.js';
export {
  type DecodedState,
  IDENTITY_PROMPT,
  type Patchscope,
  type PatchscopeOptions,
  patchscope,
} from './lens/patchscope.js';
export { type LensStrength, type Translator, TunedLens, type TunedLensInfo } from './lens/tuned-lens.js';
export * from './model/index.js';
export { type ExperimentReportOptions, experimentReport } from './report/experiment/report.js';
export { checkTables, writeRunReport } from './report/experiment/run.js';
export { type FolderRun, type FolderRunOptions, runInFolder } from './report/experiment/run-experiment.js';
export { type Figure, figureToSvg, type Panel, type Series } from './report/figures/figure.js';
export { heatmapToSvg } from './report/figures/heatmap.js';
export { pictureToSvg } from './report/figures/picture.js';
export { piesToSvg } from './report/figures/pies.js';
export { figureToPng, svgToPng } from './report/figures/png.js';
export { scatterToSvg } from './report/figures/scatter.js';
export { reportToHtml } from './report/page/page.js';
export type {
  Block,
  LensPicture,
  LensView,
  Pies,
  Report,
  Scatter,
  TextTable,
  WorkedExample,
} from './report/report.js';
export { sweepReport } from './report/sweep.js';
export { tableToCsv, tableToLatex, tableToMarkdown, tableToText } from './report/tables.js';
export { type RunServer, serveRuns } from './report/view/server.js';
export {
  describeRun,
  provenanceOf,
  type RunDescription,
  type RunManifest,
  writeReport,
} from './report/write-report.js';
export { answersCollide } from './tasks/answers.js';
export { rivalAnswers, rivalTask } from './tasks/conflict.js';
export { swapLetters } from './tasks/noise.js';
export {
  baselineShots,
  DELIMITER,
  fewShotPrompt,
  instructionPrompt,
  type Modality,
  queryPrompt,
  type ReadPosition,
  type VectorPrompt,
  vectorPrompts,
} from './tasks/prompts.js';
export { type SplitOptions, splitTask, type TaskSplit } from './tasks/split.js';
export { type LoadTaskOptions, listTasks, loadTask, type Task, type TaskItem } from './tasks/task.js';
export { type PromptRecord, recordPrompt } from './vectors/prompt-record.js';
export {
  type SafetensorsDtype,
  SafetensorsFile,
  type TensorInfo,
  type TensorToWrite,
  writeSafetensors,
} from './vectors/safetensors.js';
export { type TaskSpec, TaskVector, type TaskVectorInfo, type VectorOrigin } from './vectors/task-vector.js';
export { saveCapture } from './vectors/vector-file.js';
