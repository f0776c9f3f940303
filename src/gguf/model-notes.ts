import { type GgufArray, type GgufHeader, ggufNumber } from './gguf.js';

/** Tensor types without blocks: F32, F16, F64, BF16 and whole numbers. */
const PLAIN_TYPES = [0, 1, 24, 25, 26, 27, 28, 30];

/** Whether some weights are in blocks that share a scale. */
export const isQuantised = ({ tensors }: GgufHeader): boolean =>
  tensors.some(({ type }) => !PLAIN_TYPES.includes(type));

/**
 * What llama.cpp computes otherwise than the model was trained, or than one expects.
 *
 * @param window llama.cpp's sliding window, tokens; 0 for none
 */
export function modelNotes(header: GgufHeader, window: number): string[] {
  const notes: string[] = [];
  const architecture = header.metadata.get('general.architecture') as string;
  const trained = ggufNumber(header, `${architecture}.attention.sliding_window`) ?? 0;
  const context = ggufNumber(header, `${architecture}.context_length`) ?? 0;
  if (trained > 0 && window === 0 && trained < context) {
    notes.push(
      `The model was trained with a sliding window of ${trained} tokens, which llama.cpp disables for '${architecture}': prompts of up to ${trained} tokens are exact; in longer ones tokens see further back.`,
    );
  }
  if (isQuantised(header)) {
    notes.push(
      'The weights are quantised: a state depends on which rows are computed together (1 - cosine up to about 5e-4; where states have outliers, as in Gemma 3, up to 0.02). Where small differences count, use an F16 or F32 file.',
    );
  }
  return notes;
}

/** The same for a picture encoder. */
export function projectorNotes(header: GgufHeader, projector: string): string[] {
  const tiled = (header.metadata.get('clip.vision.image_grid_pinpoints') as GgufArray | undefined)?.length;
  if (!tiled || !LLAVA.includes(projector)) return [];
  return [
    'This is a LLaVA-1.6 encoder: llama.cpp cuts pictures into tiles but leaves out the rows for line breaks and the cropping of the padding, so the model sees different rows than in training.',
  ];
}

/** The projectors that mtmd gives LLaVA's tiles. */
const LLAVA = ['mlp', 'mlp_norm', 'ldp', 'ldpv2'];
