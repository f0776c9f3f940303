export type { Device, NativeModelInfo as ModelInfo } from '../native/addon.js';
export { listDevices } from '../native/index.js';
export { cacheFolder } from './cache.js';
export { type CatalogueEntry, listCatalogue, memoryOf } from './catalogue.js';
export { type ChatOptions, ChatSession, type ChatTurn, type SendOptions } from './chat-session.js';
export { type ChatMessage, ChatTemplate, type ChatVocabulary } from './chat-template.js';
export { Context, type ContextOptions, type ForEach, type PassOptions } from './context.js';
export {
  type DownloadEvents,
  type DownloadOptions,
  type DownloadPlan,
  type DownloadProgress,
  downloadCheckpoint,
  downloadModel,
} from './download.js';
export type { GenerateOptions, GenerateRow, Generation } from './generate.js';
export { type RgbImage, readImage } from './image.js';
export { type LoadOptions, loadModel, Model } from './model.js';
export type { PassResult, PassRow } from './pass.js';
export { resolveLayers } from './pass.js';
export { patchRectangle } from './patch-grid.js';
export { Prompt, type PromptPicture, type Segment } from './prompt.js';
export type { StateReading } from './read-out.js';
export { type ModelFiles, resolveModel } from './resolve.js';
export * from './types.js';
