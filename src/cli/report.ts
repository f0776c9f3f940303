import { join } from 'node:path';
import { defineCommand } from './command.js';
import { text, vary } from './option.js';
import { OUTPUT_OPTIONS } from './options.js';

/** `xpatch report`: rewrites the page, tables and figures of a run from its lines. */
export const report = defineCommand({
  command: 'report <run>',
  describe: 'Rewrite the report of a run from its results, without its model',
  positionals: { run: vary(text('Folder of the run', { completes: 'folder' }), { required: true }) },
  options: OUTPUT_OPTIONS,
  examples: [['After an update of xpatch', 'report xpatch-eval-main-20261123-081500']],
  run: async ({ run, json, quiet }, terminal) => {
    const { signal } = terminal;
    using progress = terminal.progress({ json, quiet });
    progress.update('writing the report');
    // Not imported at the top: it loads the drawing code.
    const { rewriteReport } = await import('../report/experiment/run.js');
    const { blocks } = await rewriteReport(run, signal);
    progress.done();
    const file = join(run, 'report.html');
    if (json) terminal.printJson({ run, report: file, blocks: blocks.map(({ kind, name }) => ({ kind, name })) });
    else terminal.print(`Report: ${file}\n`);
  },
});
