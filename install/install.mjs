// npm's install step. It never fails an install: without an addon the package still loads, and says what to run.
import { buildAddon } from './build.mjs';
import { describeFailure, describeResult, progressPrinter, terminalOf } from './print.mjs';

const progress = progressPrinter(terminalOf(process.stderr));
try {
  const result = await buildAddon({ onProgress: progress.update });
  progress.done();
  console.log(describeResult(result));
} catch (error) {
  progress.done();
  console.error(describeFailure(error));
  console.error(
    '  The installation continues. Once that is fixed, run `npx xpatch build`; `npx xpatch doctor` checks the result.',
  );
}
