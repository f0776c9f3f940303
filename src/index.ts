// The public interface: what is not exported here, or by ./experiment, ./report and ./convert, may change without notice.
export { type ChatOptions, ChatSession, type ChatTurn, type SendOptions } from './chat/chat-session.js';
export { type ChatMessage, ChatTemplate, type ChatVocabulary } from './chat/chat-template.js';
export { logitDifference, type Metric, type PatchTops, tokenProbability } from './circuits/measure.js';
export { type PatchLayersOptions, type PatchMap, patchLayers } from './circuits/patch-layers.js';
export type { HookPoint } from './hooks/points.js';
export type {
  Edge,
  HookName,
  Intervention,
  InterventionOp,
  InterventionReport,
  LayerSelection,
  StateSet,
  Steps,
} from './hooks/types.js';
export { type CatalogueEntry, listCatalogue } from './hub/catalogue.js';
export {
  type DownloadEvents,
  type DownloadOptions,
  type DownloadPlan,
  type DownloadProgress,
  downloadModel,
} from './hub/download.js';
export type { ModelFiles } from './hub/resolve.js';
export type { VisionStates } from './images/encoders/encoder.js';
export { patchRectangle } from './images/patch-grid.js';
export { finalNorm } from './lens/final-norm.js';
export { type Lens, type LensCell, type LensOptions, logitLens } from './lens/logit-lens.js';
export {
  type DecodedState,
  type Patchscope,
  type PatchscopeOptions,
  patchscope,
} from './lens/patchscope.js';
export { TunedLens } from './lens/tuned-lens.js';
export type { LensStrength, Translator, TunedLensInfo } from './lens/tuned-lens-file.js';
export { Context, type Generations, type PassOptions, type PassResults } from './model/context.js';
export type { ContextOptions } from './model/context-options.js';
export type { GenerateOptions, Generation } from './model/generate.js';
export { HiddenStates, type StatesSelection } from './model/hidden-states.js';
export { loadModel } from './model/load-model.js';
export { type LoadOptions, Model, type ModelInfo } from './model/model.js';
export type { Capture, Logits, PassResult, PassRow, RowInput } from './model/pass.js';
export type { StateReading } from './model/read-out.js';
export type { RankedToken } from './model/tracked.js';
export type {
  HiddenStatesInfo,
  ModelIdentity,
  OnProgress,
  Progress,
  TokenScore,
} from './model/types.js';
export type { Device, RpcTraffic } from './native/addon.js';
export { listDevices } from './native/index.js';
export { rpcTraffic } from './native/rpc.js';
export { mark, Prompt, type PromptInput, type PromptPicture, type Segment } from './prompt/prompt.js';
export type { PromptRecord } from './prompt/prompt-record.js';
export type {
  ImageSource,
  PatchGrid,
  PatchRectangle,
  PicturePositions,
  Place,
  PositionRange,
  PositionRef,
  PositionSelection,
  PromptPart,
  RgbImage,
  TextPositions,
} from './prompt/types.js';
export {
  fewShotPrompt,
  instructionPrompt,
  type Modality,
  queryPrompt,
  type ReadPosition,
  type TaskSpec,
} from './tasks/prompts.js';
export { type SplitOptions, splitTask, type TaskSplit } from './tasks/split.js';
export { type LoadTaskOptions, listTasks, loadTask, type Task, type TaskItem } from './tasks/task.js';
export { XpatchError, type XpatchErrorCode } from './util/errors.js';
export {
  type SafetensorsDtype,
  SafetensorsFile,
  type TensorInfo,
  type TensorToWrite,
  type TensorValues,
  writeSafetensors,
} from './util/safetensors.js';
export { type ExtractOptions, extractTaskVector } from './vectors/extract.js';
export { type SteeringMethod, type SteeringOptions, steeringVector } from './vectors/steering.js';
export { type Said, type Sweep, type SweepOptions, type SweptLayer, sweepLayers } from './vectors/sweep.js';
export { TaskVector } from './vectors/task-vector.js';
export type { DirectionNumbering, TaskVectorInfo, VectorOrigin } from './vectors/vector-origin.js';
