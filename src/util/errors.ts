/**
 * Stable error codes. Scripts may switch on them; a code never changes its meaning.
 * Grouped by who can fix the cause.
 */
export const ERROR_CODES = [
  'ABORTED',
  'ADDON_LOAD',
  'ARCHITECTURE_UNSUPPORTED',
  'BUSY',
  'CAPTURE_INVALID',
  'CHECKPOINT_INVALID',
  'CHAT_TEMPLATE_INVALID',
  'CHAT_TEMPLATE_MISSING',
  'CONFIG_INVALID',
  'CONTEXT_OVERFLOW',
  'DATA_INVALID',
  'DEVICE_UNKNOWN',
  'DISPOSED',
  'DOWNLOAD_DENIED',
  'DOWNLOAD_FAILED',
  'DOWNLOAD_MISMATCH',
  'FILE_NOT_FOUND',
  'FILE_WRITE',
  'GGUF_INVALID',
  'HEAD_OUT_OF_RANGE',
  'HOOK_NOT_FIRED',
  'HOOK_UNSUPPORTED',
  'IMAGE_INVALID',
  'IMAGE_UNSUPPORTED',
  'INTERVENTION_INVALID',
  'INVALID_ARGUMENT',
  'LAYER_OUT_OF_RANGE',
  'LENS_INVALID',
  'LENS_MISMATCH',
  'LENS_UNSUPPORTED',
  'MARK_AMBIGUOUS',
  'MMPROJ_INVALID',
  'MODEL_CRASHED',
  'MODEL_LOAD',
  'MODEL_NOT_DOWNLOADED',
  'MODEL_UNUSABLE',
  'NATIVE_FAILURE',
  'NOT_FINITE',
  'NO_PATCH_GRID',
  'PORT_UNAVAILABLE',
  'POSITION_OUT_OF_RANGE',
  'PROMPT_EMPTY',
  'QUEUE_FAILED',
  'REFERENCE_INVALID',
  'REFERENCE_MISMATCH',
  'RPC_FAILED',
  'RUN_BUSY',
  'RUN_INVALID',
  'RUN_MISMATCH',
  'SAFETENSORS_INVALID',
  'TASK_INVALID',
  'TOKENIZER_UNSUPPORTED',
  'TOKEN_INVALID',
  'VECTOR_INVALID',
  'VECTOR_MISMATCH',
] as const;

/** The stable codes of `XpatchError`. */
export type XpatchErrorCode = (typeof ERROR_CODES)[number];

/**
 * The only error class of the library: `code` is stable, `message` says what went wrong and what to do.
 *
 * @example
 * ```ts
 * try {
 *   await context.run({ prompt: 'Q:Peru\nA:', capture: { layers: [999] } });
 * } catch (error) {
 *   if (!(error instanceof XpatchError) || error.code !== 'LAYER_OUT_OF_RANGE') throw error;
 * }
 * ```
 */
export class XpatchError extends Error {
  override readonly name = 'XpatchError';

  constructor(
    readonly code: XpatchErrorCode,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}
