// The public interface: what is not exported here may change without notice.

export { type ChatOptions, ChatSession, type ChatTurn, type SendOptions } from './chat/chat-session.js';
export { type ChatMessage, ChatTemplate, type ChatVocabulary } from './chat/chat-template.js';
export {
  CONVERTED_ARCHITECTURES,
  type Conversion,
  type ConvertedFamily,
  type ConvertedFile,
  type ConvertOptions,
  convertCheckpoint,
} from './convert/convert.js';
export { type Comparison, compareConditions, pairsOf } from './experiment/comparisons.js';
export { experimentOf, type LoadedExperiment, loadExperiment } from './experiment/config.js';
export { fitToModel } from './experiment/fit.js';
export { memoryStore } from './experiment/memory-store.js';
export { mergeShards } from './experiment/merge.js';
export { type PlanOptions, planExperiment } from './experiment/plan.js';
export { PRESETS, type Preset } from './experiment/presets.js';
export { type ExperimentResult, parallelism, type RunOptions, runExperiment } from './experiment/run.js';
export { type Manifest, RunFolder } from './experiment/run-folder.js';
export { type Scorer, scoreLines } from './experiment/scorers.js';
export { lenientMatch, majorityAnswer, type ScoringOptions, strictMatch } from './experiment/scoring.js';
export { parseShard, type Shard } from './experiment/shard.js';
export { ExperimentRun } from './experiment/store.js';
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
} from './experiment/types.js';
export { type AskOptions, askAgain, type Check, type CheckedRun, checkRun } from './experiment/verify.js';
export { CONVERSION_TYPES, type ConversionType } from './gguf/tensor-types.js';
export { cacheFolder } from './hub/cache.js';
export { type CatalogueEntry, listCatalogue, memoryOf } from './hub/catalogue.js';
export {
  type DownloadEvents,
  type DownloadOptions,
  type DownloadPlan,
  type DownloadProgress,
  downloadCheckpoint,
  downloadModel,
} from './hub/download.js';
export { type ModelFiles, resolveModel } from './hub/resolve.js';
export { readImage } from './images/image.js';
export { patchRectangle } from './images/patch-grid.js';
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
export { TunedLens } from './lens/tuned-lens.js';
export type { LensStrength, Translator, TunedLensInfo } from './lens/tuned-lens-file.js';
export { Context, type ContextOptions, type Generations, type PassOptions, type PassResults } from './model/context.js';
export type { GenerateOptions, Generation } from './model/generate.js';
export { HiddenStates, type StatesSelection } from './model/hidden-states.js';
export { type LoadOptions, loadModel, Model } from './model/model.js';
export type { Capture, Logits, PassResult, PassRow, RowInput } from './model/pass.js';
export { resolveLayers } from './model/pass.js';
export type { StateReading } from './model/read-out.js';
export type { RankedToken } from './model/tracked.js';
export * from './model/types.js';
export type { Device, NativeModelInfo as ModelInfo } from './native/addon.js';
export { listDevices } from './native/index.js';
export { mark, Prompt, type PromptInput, type PromptPicture, type Segment } from './prompt/prompt.js';
export type { PromptRecord } from './prompt/prompt-record.js';
export type {
  ImageSource,
  PatchGrid,
  PatchRectangle,
  PositionRange,
  PositionRef,
  PositionSelection,
  PromptPart,
  RgbImage,
} from './prompt/types.js';
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
export { type ComputeOptions, type ComputeResult, runCompute, type WayCost } from './studies/compute.js';
export {
  type DecodedLayer,
  type Decoding,
  type DecodingEvents,
  type DecodingOptions,
  decodeVector,
  runDecodings,
} from './studies/decodings.js';
export {
  type EmbeddedPrompt,
  type EmbeddingEvents,
  type EmbeddingOptions,
  type EmbeddingResult,
  type EmbeddingSpace,
  type Measure,
  runEmbedding,
} from './studies/embedding.js';
export {
  type EvolutionCell,
  type EvolutionEvents,
  type EvolutionOptions,
  type PromptReading,
  runEvolution,
} from './studies/evolution.js';
export { EVOLUTION_CLASSES, type EvolutionClass, type WordClass } from './studies/evolution-classes.js';
export {
  type LensPromptOptions,
  type LensPrompts,
  taskLensPrompts,
  textLensPrompts,
} from './studies/lens-prompts.js';
export { evaluateLens, type LensQuality, type LensQualityOptions } from './studies/lens-quality.js';
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
  type TaskSpec,
  type VectorPrompt,
  vectorPrompts,
} from './tasks/prompts.js';
export { type SplitOptions, splitTask, type TaskSplit } from './tasks/split.js';
export { type LoadTaskOptions, listTasks, loadTask, type Task, type TaskItem } from './tasks/task.js';
export { firstTokens, TOP_CLASSES, type TopClass, wordTokens } from './tasks/token-classes.js';
export { ERROR_CODES, XpatchError, type XpatchErrorCode } from './util/errors.js';
export {
  type SafetensorsDtype,
  SafetensorsFile,
  type TensorInfo,
  type TensorToWrite,
  type TensorValues,
  writeSafetensors,
} from './util/safetensors.js';
export { type ExtractOptions, extractTaskVector } from './vectors/extract.js';
export { type Said, type Sweep, type SweepOptions, type SweptLayer, sweepLayers } from './vectors/sweep.js';
export { TaskVector } from './vectors/task-vector.js';
export type { TaskVectorInfo, VectorOrigin } from './vectors/vector-origin.js';
