/**
 * The surface of the C++ addon, one line a function. tests/native checks that the addon exports exactly these names.
 * Nothing but src/native and src/model uses it: arguments are validated there, in TypeScript, before they get here.
 */
export interface Addon {
  loadBackends(folder: string): void;
  /** An empty string, or why the library could not be loaded. */
  loadBackendLibrary(path: string): string;
  listDevices(): Device[];
  llamaVersion(): string;

  /** What a server must answer to the first message of ggml-rpc's protocol. */
  rpcProtocol(): { version: [number, number, number]; greeting: string };
  /** Of the whole process, so far. */
  rpcTraffic(): RpcTraffic;
  /** Whether this process has a connection to a server: it then answers no other. */
  rpcConnected(endpoint: string): boolean;
  /** Serves the devices that `device` names at an endpoint, until the process ends; ends it where the address cannot be used. */
  rpcServe(endpoint: string, device: string, threads: number): void;

  /** What ggml can read: triples of a tensor type's number, values a block, bytes a block. */
  tensorTypes(): Int32Array;

  modelLoad(
    options: NativeModelOptions,
    onProgress: (fraction: number) => void,
    abort: Int32Array,
  ): Promise<ModelHandle>;
  modelInfo(model: ModelHandle): NativeModelInfo;
  /** Parts of one text in turn: as written, literal, as written, ... */
  modelTokenize(model: ModelHandle, parts: readonly string[]): Int32Array;
  modelDetokenize(model: ModelHandle, tokens: Int32Array, renderSpecial: boolean): Uint8Array;
  modelIsEnd(model: ModelHandle, token: number): boolean;
  modelControlTokens(model: ModelHandle): Int32Array;
  modelDispose(model: ModelHandle): Promise<void>;

  /**
   * Writes rows of F32, F16 or BF16 (types by ggml's numbers) as rows of another type into `destination`, whose size must
   * fit. Rejects with NOT_FINITE. Runs on another thread; neither array may change until it is done.
   */
  quantise(
    source: Uint8Array,
    sourceType: number,
    destination: Uint8Array,
    type: number,
    valuesPerRow: number,
  ): Promise<void>;

  contextCreate(model: ModelHandle, options: NativeContextOptions): Promise<ContextHandle>;
  contextSize(context: ContextHandle): number;
  /** Where states can be read and written, by hook (in the order of `HOOKS`) and layer. */
  contextPoints(context: ContextHandle): NativePoint[][];
  contextEmbeddingDeviation(context: ContextHandle): Promise<number>;
  contextDecode(context: ContextHandle, job: DecodeJob): Promise<void>;
  contextLens(context: ContextHandle, job: LensJob): Promise<void>;
  contextAbort(context: ContextHandle, on: boolean): void;
  contextDispose(context: ContextHandle): Promise<void>;

  visionCreate(model: ModelHandle, options: { path: string; device: string; threads: number }): Promise<VisionHandle>;
  /** With `layoutOnly` nothing is computed: chunks lack embeddings and what was seen. `blocks`: whose outputs are read. */
  visionEncode(
    vision: VisionHandle,
    rgb: Uint8Array,
    width: number,
    height: number,
    layoutOnly?: boolean,
    blocks?: Int32Array,
  ): Promise<NativeImageChunk[]>;
  visionDispose(vision: VisionHandle): Promise<void>;

  /** The tensors of a GGUF file on a device, for picture encoders that mtmd does not have. */
  weightsLoad(options: { path: string; device: string; threads: number }): Promise<WeightsHandle>;
  /** Rows x n_embd of a preprocessed picture; `flash`: see native/idefics2.h. */
  idefics2Encode(
    weights: WeightsHandle,
    rgb: Uint8Array,
    width: number,
    height: number,
    flash: boolean,
  ): Promise<Float32Array>;
  weightsDispose(weights: WeightsHandle): Promise<void>;
}

declare const handle: unique symbol;
export type ModelHandle = { readonly [handle]: 'model' };
export type ContextHandle = { readonly [handle]: 'context' };
export type VisionHandle = { readonly [handle]: 'vision' };
export type WeightsHandle = { readonly [handle]: 'weights' };

/** A compute device, as ggml reports it. Memory in bytes. */
export interface Device {
  name: string;
  description: string;
  backend: string;
  type: 'cpu' | 'gpu' | 'igpu' | 'accel';
  memoryFree: number;
  memoryTotal: number;
}

/** Bytes to and from the servers of `rpc`, weights included. */
export interface RpcTraffic {
  sent: number;
  received: number;
  /** Batches that were computed with them. */
  decodes: number;
}

export interface NativeModelOptions {
  path: string;
  device: string;
  /** Servers that take layers too, with their addresses in numbers: `1.2.3.4:50052`. */
  rpc?: readonly string[];
  gpuLayers: number;
  /** Small tensors as in the file, zeros for the others; see native/weightless.h. Absent: all of them, mapped from the file. */
  weightless?: boolean;
  /** Whether the weights are F32, F16 or BF16: they stay as they are then, for native/kernel_backend.h. */
  floats?: boolean;
  /** Absent: the model has none. */
  qkNorm?: NativeQkNorm;
}

/** LayerNorms of queries and keys; lists of nLayers * headSize. See native/qk_norm.h. */
export interface NativeQkNorm {
  nLayers: number;
  headSize: number;
  epsilon: number;
  qWeight: Float32Array;
  qBias: Float32Array;
  kWeight: Float32Array;
  kBias: Float32Array;
}

/** What the GGUF file says about its language model: `Model.info`. */
export interface NativeModelInfo {
  /** llama.cpp's name of the family, e.g. `llama` or `qwen2vl`. */
  architecture: string;
  /** The model's own name; empty where its file has none. */
  name: string;
  /** Family, size and quantisation in a few words. */
  description: string;
  /** Number of blocks. */
  nLayers: number;
  /** Width of the residual stream. */
  nEmbd: number;
  /** Width of the rows that a picture is handed in as; more than `nEmbd` where a deepstack comes with them. */
  nEmbdInput: number;
  nVocab: number;
  /** Positions that the model was trained on. */
  nCtxTrain: number;
  /** Numbers that a row of a picture is placed by: 4 in models with M-RoPE. */
  positionsPerEmbedding: 1 | 4;
  /** Positions that a layer with a sliding window sees, 0 without one. */
  slidingWindow: number;
  /** Whether a state of its own stands for the past: such models cannot go back to an earlier position. */
  recurrent: boolean;
  hasEncoder: boolean;
  hasDecoder: boolean;
  hasTokenizer: boolean;
  /** Negative for none. */
  bosToken: number;
  /** Whether a prompt begins with `bosToken` by itself. */
  addsBos: boolean;
  /** Bytes of the weights. */
  sizeBytes: number;
}

export interface NativeContextOptions {
  nCtx: number;
  nUbatch: number;
  nSeq: number;
  threads: number;
  flashAttention: 'on' | 'off' | 'auto';
  kvType: 'f16' | 'f32';
}

/** One llama_decode of at most n_ubatch rows; see decode_job in native/runtime.h. Copies are [src, dst, p0, p1] each, cuts [seq, p0]. */
export interface DecodeJob {
  clear?: boolean;
  copies?: Int32Array;
  cuts?: Int32Array;
  tokens?: Int32Array;
  embeddings?: Float32Array;
  positions?: Int32Array;
  outputs: Uint8Array;
  /** Those that the first row belongs to, then those of the next. */
  sequences: Int32Array;
  /** How many each row belongs to. */
  sequenceCounts: Int32Array;
  nonCausal?: boolean;
  /** Blocks whose part of the cache is needed later on. Defaults to all. */
  blocks?: number;
  captures?: NativeCapture[];
  patches?: NativePatch[];
  /** Of each row the first that is the same but for its patches: what no patch has reached yet is computed once. */
  same?: Int32Array;
  /** Where in its prompt each row is: in every decode of a call that reads or changes attention scores or patterns. */
  places?: Int32Array;
  logits?: { rows: Int32Array; offsets: Float64Array; out: Float32Array }[];
  top?: { rows: Int32Array; k: number; ids: Int32Array; logits: Float32Array; logsumexp: Float32Array };
}

/** States run through the part of the graph after the last block; see lens_job in native/output_head.h. */
export interface LensJob {
  tail: number;
  rows: number;
  /** rows x n_embd. */
  states: Float32Array;
  /** rows x n_embd, for the tail that ends at the final norm; the others fill what follows. */
  normed?: Float32Array;
  readings?: LensReadings;
}

/** What is read from the logits of each row. */
export interface LensReadings {
  topK: number;
  topIds: Int32Array;
  topLogits: Float32Array;
  tokens: Int32Array;
  tokenLogits: Float32Array;
  tokenRanks: Int32Array;
  logsumexp: Float32Array;
  entropy: Float32Array;
  /** Index of the row that each row is compared with. */
  reference: Int32Array;
  kl: Float32Array;
}

/** A point of one layer; see point in native/points.h. */
export interface NativePoint {
  there: boolean;
  /** Numbers of a row; 0 at attention scores and patterns. */
  width: number;
  /** Heads of a row; 0: it has none. */
  heads: number;
  /** Whether edges of the layer's attention can be cut. */
  cuts: boolean;
  /** Whether the layer has flash attention, where they are cut for all heads at once. */
  flash: boolean;
  /** Whether only rows with outputs pass here. */
  trimmed: boolean;
  rotated: boolean;
  /** Why it is not there. */
  why: string;
}

/** Rows at a point and what of them is meant; see place in native/hooks.h. Spans are pairs of first and count. */
export interface NativePlace {
  hook: number;
  layer: number;
  rows: Int32Array;
  spans: Int32Array;
  keys: number;
}

export interface NativeCapture extends NativePlace {
  offsets: Float64Array;
  out: Float32Array;
}

export interface NativePatch extends NativePlace {
  op: number;
  factor: number;
  /** Upper bound of a clamp. */
  upper: number;
  values: Float32Array;
  deltas: Float32Array;
}

export interface NativeImageChunk {
  /** Text tokens that the model wants around the picture; empty for the picture itself. */
  tokens: Int32Array;
  /** nRows x n_embd_inp; empty for text. */
  embeddings: Float32Array;
  nRows: number;
  /** By how much the position counter advances. */
  nPositions: number;
  nonCausal: boolean;
  /** M-RoPE only: t, y, x, z of every row relative to the first, dimension by dimension. */
  positions: Int32Array;
  /** What the encoder read after its preprocessing, 8-bit RGB; empty for text, as what follows. */
  seen: Uint8Array;
  seenWidth: number;
  seenHeight: number;
  /** mtmd's name of the projector type. */
  projector: string;
  /** Side of a patch, pixels. */
  patchSize: number;
  /** Patches that the projector merges in each direction, as the file says. */
  merge: number;
  /** Patches x stateWidth after the encoder's blocks that were asked for, by block, of those that its graph has. */
  states: Readonly<Record<number, Float32Array>>;
  stateWidth: number;
}
