import { join } from 'node:path';
import { mergeShards } from '../experiment/merge.js';
import { isToMerge } from '../experiment/shard.js';
import { counted } from '../util/counted.js';
import { defineCommand } from './command.js';
import { several, vary } from './option.js';
import { OUTPUT_FOLDER, OUTPUT_OPTIONS } from './options.js';
import { quoted } from './quoted.js';

/** `xpatch merge`: makes the shards of an experiment one run. */
export const merge = defineCommand({
  command: 'merge <runs..>',
  describe: 'Merge the shards of an experiment into one run',
  positionals: { runs: vary(several('Folders of all shards', { completes: 'folder' }), { required: true }) },
  options: { output: vary(OUTPUT_FOLDER, { describe: 'Folder of the whole run', required: true }), ...OUTPUT_OPTIONS },
  examples: [
    ['One half, on one machine', 'eval main -m demo --shard 1/2 -o one'],
    ['The other half, on another', 'eval main -m demo --shard 2/2 -o two'],
    ['Both folders copied to one place', 'merge one two -o whole'],
  ],
  run: async ({ runs, output, json, quiet }, terminal) => {
    const { signal } = terminal;
    using progress = terminal.progress({ json, quiet });
    progress.update('reading the shards');
    await using run = await mergeShards(runs, output, terminal.commandLine());
    for (const note of run.notes) progress.note(note);
    const lines = run.known.size;
    const next = `Next: xpatch eval … --stage test --layer-from ${quoted(output)} --shard I/N`;
    const isValidation = isToMerge(run.manifest);
    if (isValidation) {
      if (!run.complete) await run.finish();
    } else {
      progress.update('writing the report');
      // Not imported at the top: it loads sharp, and doctor must start where that does not work.
      const { writeRunReport } = await import('../report/experiment/run.js');
      const { headline } = await writeRunReport(run, signal);
      if (!run.complete) await run.finish({ headline });
    }
    progress.done();
    const what = `${counted(lines, 'line')} from ${counted(runs.length, 'shard')}.`;
    if (json) terminal.printJson({ output, shards: runs.length, lines });
    else terminal.print(`${what}\n${isValidation ? next : `Report: ${join(output, 'report.html')}`}\n`);
  },
});
