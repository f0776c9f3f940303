import type { HiddenStates } from '../model/hidden-states.js';
import type { PassResult } from '../model/pass.js';
import type { ModelIdentity } from '../model/types.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { asStates } from './states.js';
import { readLensFile, type Translator, type TunedLensInfo, writeLensFile } from './tuned-lens-file.js';

/**
 * A tuned lens (Belrose et al. 2023, arXiv 2303.08112): for each layer l an affine map that predicts the last layer's state
 * from that of layer l, `h + matrix h + bias`, so that the model's own head reads what the state says in the
 * coordinates that the head expects. Fitted by `fitTunedLens`.
 *
 * @example
 * ```ts
 * const tuned = await TunedLens.load('lens.safetensors', model.identity);
 * const { states } = await context.run({ prompt: 'Q:Peru\nA:', capture: 'all' });
 * const lens = await logitLens(context, await tuned.apply(states), { topK: 3 });
 * ```
 */
export class TunedLens {
  /**
   * @param translators one for each of `info.layers`
   * @throws {XpatchError} LENS_INVALID when sizes do not fit, layers do not rise below the last one, or a number is not finite
   */
  constructor(
    readonly info: TunedLensInfo,
    readonly translators: readonly Translator[],
  ) {
    const { layers, model } = info;
    const fail = (problem: string) => {
      throw new XpatchError('LENS_INVALID', `Not a tuned lens of ${model.name}: ${problem}. Fit it again.`);
    };
    if (layers.length !== translators.length) fail(`${layers.length} layers, ${translators.length} translators`);
    layers.forEach((layer, i) => {
      const { strength, matrix, bias } = translators[i] as Translator;
      if (!Number.isInteger(layer) || layer <= (layers[i - 1] ?? -1) || layer >= model.nLayers - 1) {
        fail(`layers [${layers.join(', ')}] must rise within 0 to ${model.nLayers - 2}`);
      }
      const sizes = [strength === 'plain' ? 0 : model.nEmbd, typeof strength === 'number' ? model.nEmbd ** 2 : 0];
      if ((bias?.length ?? 0) !== sizes[0] || (matrix?.length ?? 0) !== sizes[1]) {
        fail(`layer ${layer} has a matrix of ${matrix?.length ?? 0} and a bias of ${bias?.length ?? 0} numbers`);
      }
      if (typeof strength === 'number' && !(strength > 0 && Number.isFinite(strength))) {
        fail(`layer ${layer} has a ridge strength of ${strength}`);
      }
      if (!allFinite(matrix) || !allFinite(bias)) fail(`layer ${layer} holds NaN or infinity`);
    });
  }

  /**
   * The states with each layer replaced by its prediction of the last layer's state; those of the last layer stay. What
   * `logitLens` makes of the result is the tuned lens.
   *
   * @param states captured states of the lens's model, those of a pass, or a task vector of its width
   * @throws {XpatchError} INVALID_ARGUMENT for no states; LENS_MISMATCH for another width or hook; LAYER_OUT_OF_RANGE for a layer that the lens lacks; ABORTED
   */
  async apply(
    states: HiddenStates | TaskVector | PassResult,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<HiddenStates> {
    const source = asStates(states);
    const { model, hook, layers } = this.info;
    const [, , width] = source.shape;
    if (width !== model.nEmbd || source.hook !== hook) {
      const problem = `States of ${source.hook}, width ${width}, do not fit a tuned lens of ${hook}, width ${model.nEmbd}.`;
      throw new XpatchError('LENS_MISMATCH', `${problem} Fit one for this model.`);
    }
    const chosen = source.layers.map((layer): Translator => {
      if (layer === model.nLayers - 1) return { strength: 'plain' };
      const translator = this.translators[layers.indexOf(layer)];
      if (translator) return translator;
      const problem = `The tuned lens has no layer ${layer}, only ${layers.join(', ')} and the last one`;
      throw new XpatchError('LAYER_OUT_OF_RANGE', `${problem}. Leave it out, or fit the lens again.`);
    });
    const pace = new Pace(signal);
    const translated = source.withData(source.data.slice());
    for (const [l, translator] of chosen.entries()) {
      for (const p of source.positions.keys()) {
        translate(source.row(l, p), translator, translated.row(l, p));
        if (pace.due()) await pace.rest();
      }
    }
    return translated;
  }

  /**
   * Saves as safetensors: for each translated layer `layers.L.matrix` F32 [n_embd, n_embd] (out, in) and `layers.L.bias`
   * F32 [n_embd], and in the metadata `format`, `model`, `hook`, `layers`, `strengths` and `fit`, as text or JSON.
   * @throws {XpatchError} FILE_WRITE
   */
  async save(path: string): Promise<void> {
    await writeLensFile(path, this.info, this.translators);
  }

  /**
   * Loads a lens for a model.
   * @param model the one whose states will be read (`model.identity`)
   * @throws {XpatchError} FILE_NOT_FOUND; LENS_INVALID for anything that is not a lens or is damaged; LENS_MISMATCH when it was
   *   fitted to another model file
   */
  static async load(path: string, model: ModelIdentity): Promise<TunedLens> {
    const { info, translators } = await readLensFile(path, model);
    return new TunedLens(info, translators);
  }
}

/** `out = h + matrix h + bias`. */
export function translate(h: Float32Array, { matrix, bias }: Translator, out: Float32Array): void {
  const width = h.length;
  for (let i = 0; i < width; i++) {
    let sum = (h[i] as number) + (bias?.[i] ?? 0);
    if (matrix) {
      const at = i * width;
      for (let j = 0; j < width; j++) sum += (matrix[at + j] as number) * (h[j] as number);
    }
    out[i] = sum;
  }
}

function allFinite(values: Float32Array | undefined): boolean {
  return values?.every(Number.isFinite) ?? true;
}
