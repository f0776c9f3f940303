// npm run build:native -- [--mode auto|hybrid|source] [--clean] [--prebuilt] [--json]
// Leaves what it compiled in .cache/, so that it takes seconds after a change of the sources.
// --prebuilt puts the addon where the package ships it: prebuilds/<platform>-<arch>/.
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildAddon, refuseHybrid } from './build.mjs';
import { findFolders, findLlama } from './layout.mjs';
import { describeFailure, describeResult, progressPrinter } from './print.mjs';

const { values } = parseArgs({
  options: {
    mode: { type: 'string' },
    clean: { type: 'boolean', default: false },
    prebuilt: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const { binary, prebuilt } = findFolders();
if (values.prebuilt) {
  rmSync(prebuilt, { recursive: true, force: true });
  // llama.cpp compiled in must run on other processors than this machine's
  const llama = findLlama();
  if (values.mode === 'source' || refuseHybrid(llama))
    process.env.XPATCH_CMAKE_ARGS = `-DGGML_NATIVE=OFF ${process.env.XPATCH_CMAKE_ARGS ?? ''}`;
}
const progress = progressPrinter(process.stderr);
try {
  const result = await buildAddon({ mode: values.mode, clean: values.clean, keep: true, onProgress: progress.update });
  if (values.prebuilt) {
    mkdirSync(prebuilt, { recursive: true });
    for (const file of ['xpatch.node', 'build.json']) copyFileSync(join(binary, file), join(prebuilt, file));
    result.path = join(prebuilt, 'xpatch.node');
  }
  progress.done();
  console.log(values.json ? JSON.stringify(result) : describeResult(result));
} catch (error) {
  progress.done();
  console.error(describeFailure(error));
  process.exitCode = 1;
}
