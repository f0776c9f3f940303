import { readGgufHeader } from '../gguf/gguf.js';
import type { HookPoint } from '../hooks/points.js';
import type { LayerSelection } from '../hooks/types.js';
import { blankRows, type ImageEncoder, type VisionStates } from '../images/encoders/encoder.js';
import { CachedImageEncoder } from '../images/image-cache.js';
import type { ModelHandle, NativeModelInfo } from '../native/addon.js';
import { native, nativeError } from '../native/index.js';
import { frameParts } from '../prompt/framing.js';
import { Prompt, type PromptInput, type Segment } from '../prompt/prompt.js';
import { buildPrompt, type PromptTools } from '../prompt/prompt-builder.js';
import { textRuns } from '../prompt/text-parts.js';
import type { JsonTokenizer } from '../prompt/tokenizer.js';
import type { ImageSource, PromptPart, TextPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { Context } from './context.js';
import type { ContextOptions } from './context-options.js';
import type { ModelIdentity } from './types.js';
import { readVisionStates, towerRefusal } from './vision-states.js';

/** Where a model is loaded, with which picture encoder. */
export interface LoadOptions {
  /** Path or `hf:` URI of the mmproj GGUF with the picture encoder. Defaults to the catalogue's or the hub repository's, otherwise none. */
  mmproj?: string;
  /** `auto` (every GPU), `cpu`, or a device name as printed by `xpatch doctor`. Defaults to `auto`. */
  device?: string;
  /**
   * Servers that take layers too, `host:port` each (`xpatch rpc-server`; see docs/scale.md): layers are divided over them and the
   * device by their free memory, and none goes to a CPU. Defaults to none.
   */
  rpc?: readonly string[];
  /** Layers to keep on the device, the rest on the CPU. Defaults to all. */
  gpuLayers?: number;
  /** CPU threads, of contexts and the picture encoder. Defaults to 1 for files under 64 MB, else to the machine's cores, at most 8. */
  threads?: number;
  /** Width to which pictures are scaled, aspect kept, before the model's own preprocessing (the paper: 224). Defaults to none. */
  imageWidth?: number;
  /** Bound on the memory cache of encoded pictures, bytes. Defaults to 256 MiB. */
  imageCacheBytes?: number;
  /** Folder that keeps encoded pictures between runs. Defaults to none. */
  imageCacheFolder?: string;
  /**
   * Loads files that were never loaded on this machine without trying them in another process first (see docs/reliability.md).
   * Defaults to false, or to true with XPATCH_TRUST=1 in the environment.
   */
  trust?: boolean;
  signal?: AbortSignal;
  /** Fraction of the weights that are loaded, 0 to 1. */
  onProgress?: (fraction: number) => void;
  /** Called when files are tried in another process first. */
  onTrial?: () => void;
  /** Large tensors are zeros: see native/weightless.h. @internal */
  weightless?: boolean;
}

/** Facts about a model. */
export interface ModelInfo extends NativeModelInfo {
  /** Positions that the model has embeddings for, if it learned them: no prompt with its answer is longer. */
  maxPositions?: number;
}

/**
 * A loaded model: tokenizer, prompt builder and picture encoder. Contexts made from it share its weights.
 *
 * @example
 * ```ts
 * const { nLayers, nEmbd } = model.info;
 * const tokens = model.tokenize('Q:Peru\nA:');
 * const prompt = await model.prompt(['Q:', { image: 'data/images/twemoji/peru.png' }, '\nA:']);
 * ```
 */
export class Model implements AsyncDisposable {
  private readonly contexts = new Set<Context>();
  private points: readonly HookPoint[] | undefined;
  private encoder: CachedImageEncoder | undefined;
  private encoderHash: string | undefined;
  private control: ReadonlySet<number> | undefined;
  private handle: ModelHandle | undefined;
  private disposing: Promise<void> | undefined;

  /** What to know about its numbers: where llama.cpp computes differently from training. A sentence or two each. */
  readonly notes: string[] = [];

  /** Why no hook can be set on this model, if so. @internal */
  hookRefusal?: string;

  /** Whether products round their inputs too, so that what is linear is so only roughly. @internal */
  quantised = false;

  /** @internal Use `loadModel`. */
  constructor(
    handle: ModelHandle,
    /** Which model this is; recorded with everything read from it. */
    readonly identity: ModelIdentity,
    readonly info: Readonly<ModelInfo>,
    readonly files: Readonly<{ model: string; mmproj?: string }>,
    readonly options: Readonly<LoadOptions & { threads: number; device: string }>,
    private readonly tokenizer?: JsonTokenizer,
  ) {
    this.handle = handle;
  }

  /** The handle of the addon; throws DISPOSED after dispose. @internal */
  get native(): ModelHandle {
    if (!this.handle) throw new XpatchError('DISPOSED', 'The model was disposed. Load it again to use it.');
    return this.handle;
  }

  /** Whether prompts may contain pictures. */
  get hasVision(): boolean {
    return this.encoder !== undefined;
  }

  /** The chat template of the GGUF, in Jinja; `ChatTemplate` renders it. */
  get chatTemplate(): string | undefined {
    const value = readGgufHeader(this.files.model).metadata.get('tokenizer.chat_template');
    return typeof value === 'string' ? value : undefined;
  }

  /** How many pictures were actually encoded, not counting those from the cache. */
  get imageEncodes(): number {
    return this.encoder?.encodes ?? 0;
  }

  /** SHA-256 of the mmproj file, hex; undefined without a picture encoder. */
  get projectorHash(): string | undefined {
    return this.encoderHash;
  }

  /** Puts the cache in front of a picture encoder. @internal */
  useEncoder(encoder: ImageEncoder, hash: string): void {
    this.encoderHash = hash;
    const { imageCacheBytes: maxBytes, imageCacheFolder: folder, imageWidth: width } = this.options;
    this.encoder = new CachedImageEncoder(encoder, { maxBytes, folder, width });
  }

  /**
   * Tokenises parts, encodes their pictures (each distinct one once) and finds the positions of the marks.
   * BOS is added when the model's tokenizer adds it, unless the prompt starts with token ids. Control tokens (`<s>`, `<|im_end|>`)
   * that are written in a text are read as such; a `{ literal }` has none.
   *
   * @param options.bos `false` adds no BOS. Defaults to what the tokenizer does.
   * @throws XpatchError PROMPT_EMPTY, MARK_AMBIGUOUS, TOKEN_INVALID, IMAGE_INVALID, IMAGE_UNSUPPORTED, ABORTED.
   */
  async prompt(
    source: PromptInput,
    { signal, bos = true }: { signal?: AbortSignal; bos?: boolean } = {},
  ): Promise<Prompt> {
    this.native; // throws when disposed
    const checkAborted = () => {
      if (signal?.aborted) throw new XpatchError('ABORTED', 'The call was aborted.', { cause: signal.reason });
    };
    checkAborted();
    if (source instanceof Prompt) return source;
    return this.assemble(
      Array.isArray(source) ? source : [source as PromptPart],
      async (image) => {
        checkAborted(); // an encode takes seconds with large models
        return this.encodeImage(image);
      },
      { bos },
    );
  }

  /** A prompt with whatever `pictureOf` gives for its pictures, where they need not be encoded to know its tokens. @internal */
  assemble(
    parts: readonly PromptPart[],
    pictureOf: PromptTools['encodeImage'] = standIn,
    { bos = true }: { bos?: boolean } = {},
  ): Promise<Prompt> {
    const { frame } = this.encoder ?? {};
    const { bosToken } = this.info;
    const addsBos = bos && this.info.hasTokenizer && this.info.addsBos && bosToken >= 0;
    const tools: PromptTools = {
      tokenize: (some) => this.tokenize(some),
      describe: (token) => this.detokenize([token]),
      bytesOf: (token) => this.tokenBytes([token]),
      bos: addsBos ? bosToken : undefined,
      nVocab: this.info.nVocab,
      encodeImage: pictureOf,
    };
    return buildPrompt(frame ? frameParts(parts, frame, { bosToken, addsBos }) : parts, tools, parts);
  }

  /** How a picture is laid out in a prompt, for `assemble`: as in `prompt`, without encoding it. @internal */
  layoutOf(source: ImageSource): Promise<Segment[]> {
    return this.requireEncoder().layoutOf(source);
  }

  /**
   * States of a picture after the blocks of the picture encoder: `vision.resid_post`. A block that the model leaves out, as LLaVA
   * does the last one, is not among `all`.
   *
   * @returns one for each picture that the encoder reads by itself: a model that reads tiles has several
   * @throws XpatchError IMAGE_UNSUPPORTED, HOOK_UNSUPPORTED, LAYER_OUT_OF_RANGE, IMAGE_INVALID, FILE_NOT_FOUND.
   */
  async visionStates(
    source: ImageSource,
    { layers = 'all' }: { layers?: LayerSelection } = {},
  ): Promise<VisionStates[]> {
    return readVisionStates(this.requireEncoder(), source, layers);
  }

  /** The point `vision.resid_post`; undefined without a picture encoder. @internal */
  visionPoint() {
    if (!this.encoder) return undefined;
    const { tower } = this.encoder;
    const reason = towerRefusal(this.encoder);
    const layers = Array.from({ length: tower?.blocks ?? 0 }, (_, layer) => layer);
    const refusals = reason === undefined ? [] : [{ layers: [0], reason }];
    return { hook: 'vision.resid_post', layers, ...(tower && { width: tower.width }), refusals };
  }

  private encodeImage(source: ImageSource): Promise<Segment[]> {
    return this.requireEncoder().encodeSource(source);
  }

  private requireEncoder(): CachedImageEncoder {
    if (!this.encoder) {
      throw new XpatchError(
        'IMAGE_UNSUPPORTED',
        `'${this.identity.name || this.files.model}' was loaded without a picture encoder. Load it with its mmproj GGUF (--mmproj).`,
      );
    }
    return this.encoder;
  }

  /**
   * Tokens of a text, without BOS. Parts are joined and tokenised as one text; control tokens written in it are
   * recognised, but not in a literal.
   *
   * @throws XpatchError TOKEN_INVALID without a tokenizer.
   */
  tokenize(text: TextPart | readonly TextPart[]): Int32Array {
    const runs = textRuns(Array.isArray(text) ? text : [text as TextPart]);
    try {
      return this.tokenizer?.encode(runs) ?? native().addon.modelTokenize(this.native, runs);
    } catch (error) {
      throw nativeError(error, 'The text cannot be tokenised');
    }
  }

  /** The control tokens in a text, in order. @internal */
  controlTokens(text: string): number[] {
    this.control ??= new Set(native().addon.modelControlTokens(this.native));
    return Array.from(this.tokenize(text)).filter((token) => this.control?.has(token));
  }

  /** Bytes of tokens: a token may be a part of a UTF-8 character. Special tokens are left out unless `special`. */
  tokenBytes(tokens: ArrayLike<number>, special = false): Uint8Array {
    try {
      return native().addon.modelDetokenize(this.native, Int32Array.from(tokens), special);
    } catch (error) {
      throw nativeError(error, 'The tokens have no text');
    }
  }

  /** Text of tokens, special tokens written out; bytes that are not a whole character become U+FFFD. */
  detokenize(tokens: ArrayLike<number>): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.tokenBytes(tokens, true));
  }

  /** Whether a token ends a generation. */
  isEnd(token: number): boolean {
    return native().addon.modelIsEnd(this.native, token);
  }

  /** Makes a context: a KV cache and what runs passes on it. */
  async createContext(options: ContextOptions = {}): Promise<Context> {
    const context = await Context.create(this, options);
    if (!this.handle) {
      await context.dispose();
      this.native; // throws: the model was disposed meanwhile
    }
    this.contexts.add(context);
    return context;
  }

  /**
   * Where states of this model can be read and written, without flash attention; found once. What a context has, as it computes:
   * `context.hooks`.
   *
   * @throws XpatchError DISPOSED.
   */
  async hooks(): Promise<readonly HookPoint[]> {
    this.native; // throws if the model was disposed
    if (!this.points) {
      await using context = await this.createContext({ nCtx: 64, nUbatch: 64, flashAttention: 'off' });
      this.points = context.hooks;
    }
    return this.points;
  }

  /** @internal */
  forget(context: Context): void {
    this.contexts.delete(context);
  }

  /** Frees the model, its contexts and its encoder; what runs on them ends with ABORTED. May be called twice. */
  dispose(): Promise<void> {
    this.disposing ??= this.free();
    return this.disposing;
  }

  private async free(): Promise<void> {
    const handle = this.native;
    this.handle = undefined;
    await Promise.all([...this.contexts].map((context) => context.dispose()));
    await this.encoder?.dispose();
    await native().addon.modelDispose(handle);
  }

  /** `dispose()`, at the end of an `await using` block. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** One row instead of a picture. */
const standIn: PromptTools['encodeImage'] = async () => [blankRows(1)];
