import { fitTunedLens } from '../lens/fit-tuned-lens.js';
import { TunedLens } from '../lens/tuned-lens.js';
import type { Translator, TunedLensInfo } from '../lens/tuned-lens-file.js';
import type { Progress } from '../model/types.js';
import type { PromptTemplate } from '../tasks/template.js';
import { requireText } from '../util/lines.js';
import { readWhole } from '../util/read-file.js';
import { taskLensPrompts, textLensPrompts } from './lens-prompts.js';
import { drawTests, type PromptDivergence, promptDivergence } from './lens-quality.js';
import type { Study, Unit } from './study.js';

/** On what a tuned lens is fitted and tested. */
export interface TuningOptions {
  /** A text file. Defaults to prompts of the shipped tasks. */
  readonly text?: string | undefined;
  /** Most prompts to fit on. */
  readonly prompts: number;
  readonly seed: number;
  /** How prompts of tasks are written. Defaults to the paper's template. */
  readonly template?: PromptTemplate | undefined;
}

/** The lens, or how far it is from the model on one prompt that it was not fitted on. */
export type TuningPart =
  | {
      /** Name of the lens among the vectors of the run. */
      readonly vector: string;
      readonly info: TunedLensInfo;
      readonly strengths: readonly Translator['strength'][];
    }
  | PromptDivergence;

/** Where a run keeps its lens. */
export const LENS = 'lens';

/** Fits a lens, and tests it prompt by prompt. */
export const tuningUnits: Study<TuningOptions, TuningPart> = async (context, options, events) =>
  tuningOf(options.text === undefined ? undefined : await readText(options.text))(context, options, events);

/** The same with a text that has been read: a pipe gives it once. */
export const tuningOf =
  (text: string | undefined): Study<TuningOptions, TuningPart> =>
  async (context, { prompts, seed, template }, { signal, onProgress }) => {
    const { model } = context;
    const how = { prompts, seed, signal };
    const reading = { ...how, template, onProgress: ({ done, total }: Progress) => onProgress(done / total) };
    const made = text === undefined ? await taskLensPrompts(model, reading) : await textLensPrompts(model, text, how);
    const { fit, validation } = made;
    let lens: TunedLens | undefined;
    return [
      {
        name: 'fitting',
        run: async (_, { store, signal, onProgress }) => {
          lens = await fitTunedLens(context, fit, {
            validation,
            seed,
            signal,
            onProgress: ({ done, total }) => onProgress(done / total),
          });
          await store.saveVector(LENS, lens);
          return { vector: LENS, info: lens.info, strengths: lens.translators.map(({ strength }) => strength) };
        },
      },
      ...drawTests(made.test, { items: made.testItems, seed }).map(
        (test, i, { length }): Unit<TuningPart> => ({
          name: `testing, prompt ${i + 1} of ${length}`,
          run: async (_, { store, signal }) => {
            lens ??= await store.load(LENS, (path) => TunedLens.load(path, model.identity));
            return promptDivergence(context, test, lens, signal);
          },
        }),
      ),
    ];
  };

/** Far more than any lens is fitted on. */
const TEXT = { what: 'the text', maxBytes: 256 << 20, pipe: true } as const;

/** @throws XpatchError FILE_NOT_FOUND, INVALID_ARGUMENT */
export async function readText(path: string): Promise<string> {
  return requireText(await readWhole(path, TEXT), path);
}
