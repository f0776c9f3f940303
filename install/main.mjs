// npm run build:native -- [--mode auto|hybrid|source] [--clean] [--json]
import { parseArgs } from 'node:util';
import { buildAddon } from './build.mjs';
import { describeFailure, describeResult, progressPrinter } from './print.mjs';

const { values } = parseArgs({
  options: {
    mode: { type: 'string' },
    clean: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const progress = progressPrinter(process.stderr);
try {
  const result = await buildAddon({ mode: values.mode, clean: values.clean, onProgress: progress.update });
  progress.done();
  console.log(values.json ? JSON.stringify(result) : describeResult(result));
} catch (error) {
  progress.done();
  console.error(describeFailure(error));
  process.exitCode = 1;
}
