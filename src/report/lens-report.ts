import { describeRun, type Manifest } from '../experiment/manifest.js';
import { RunFolder } from '../experiment/run-folder.js';
import { type PromptLensOptions, readPromptLens } from '../lens/prompt-lens.js';
import type { Context } from '../model/context.js';
import { asRow, type PassRow, type RowInput } from '../model/pass.js';
import { reportOfLens } from './lens.js';
import { reportToHtml } from './page/page.js';
import type { Report } from './report.js';
import { provenanceOf, writeReport } from './write-report.js';

/** A report that can be shown or saved. */
export class ReportPage {
  /** @internal */
  constructor(
    readonly report: Report,
    private readonly manifest: Manifest<object>,
  ) {}

  /** The page: one file that needs no other. */
  toHtml(): Promise<string> {
    return reportToHtml(this.report);
  }

  /**
   * Writes `report.html`, its figures (SVG, PNG, CSV, JSON) and tables, and a manifest, as the commands do.
   *
   * @param folder new, or empty
   * @throws {XpatchError} FILE_WRITE; ABORTED
   */
  async save(folder: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await using run = await RunFolder.create(folder, this.manifest);
    await writeReport(run, this.report, { signal });
    await run.finish({ headline: this.report.headline });
  }
}

/**
 * A page about what the states of a prompt say, layer by layer: the grid, how the answer rises, and the numbers at the last
 * position.
 *
 * @param query a prompt, or a row with interventions
 * @throws {XpatchError} as `readPromptLens`
 */
export async function lensReport(
  context: Context,
  query: RowInput,
  options: PromptLensOptions = {},
): Promise<ReportPage> {
  const found = await readPromptLens(context, query, options);
  const { text } = found.prompt.record();
  const { layers, positions } = found.lens;
  const edited = editsOf(asRow(query));
  const { topK, tuned } = options;
  const manifest = await describeRun(context, {
    experiment: 'lens',
    title: `${found.tuned ? 'Tuned' : 'Logit'} lens`,
    command: 'lensReport',
    options: {
      prompt: text,
      layers,
      positions,
      ...(topK !== undefined && { topK }),
      track: found.lens.cells[0]?.[0]?.tokens.slice(0, found.asked).map(({ token }) => token) ?? [],
      tuned: tuned ? tuned.info : null,
      ...edited,
    },
  });
  const provenance = { ...provenanceOf(manifest), prompt: text };
  const report = reportOfLens(found, { provenance });
  return new ReportPage({ ...report, introduction: [...report.introduction, ...editedText(edited)] }, manifest);
}

/** What was done to the states of a row, without the numbers that were written into them. */
function editsOf({ interventions = [], edges = [] }: PassRow) {
  return { interventions: interventions.map(({ value: _, of: __, ...said }) => said), edges };
}

/** What a reader must know: these are not the states that the model makes of the prompt by itself. */
function editedText({ interventions, edges }: ReturnType<typeof editsOf>): string[] {
  const list = (selection: unknown) => (typeof selection === 'string' ? selection : JSON.stringify(selection));
  const said = [
    ...interventions.map(({ op, hook = 'resid_post', layers, positions = 'last' }) => {
      const where = layers === undefined ? '' : ` of layers ${list(layers)}`;
      return `${op} at ${hook}${where}, positions ${list(positions)}`;
    }),
    ...edges.map(
      ({ layers, from, to = 'last' }) => `attention from ${list(to)} to ${list(from)} cut in layers ${list(layers)}`,
    ),
  ];
  return said.length === 0 ? [] : [`States were changed before they were read: ${said.join('; ')}.`];
}
