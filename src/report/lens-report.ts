import { describeRun, type Manifest } from '../experiment/manifest.js';
import { RunFolder } from '../experiment/run-folder.js';
import { type PromptLensOptions, readPromptLens } from '../lens/prompt-lens.js';
import type { Context } from '../model/context.js';
import type { RowInput } from '../model/pass.js';
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
  const manifest = await describeRun(context, {
    experiment: 'lens',
    title: `${found.tuned ? 'Tuned' : 'Logit'} lens`,
    command: 'lensReport',
    options: { prompt: text, layers, positions },
  });
  const provenance = { ...provenanceOf(manifest), prompt: text };
  return new ReportPage(reportOfLens(found, { provenance }), manifest);
}
