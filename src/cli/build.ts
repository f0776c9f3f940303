import { buildAddon, MODES } from '../../install/build.mjs';
import { describeFailure, describeResult } from '../../install/print.mjs';
import { defineCommand } from './command.js';
import { EXIT } from './errors.js';
import { choice, flag } from './option.js';
import { OUTPUT_OPTIONS } from './options.js';

/** `xpatch build`: rebuilds the native addon, as the install step does, but fails if it cannot. */
export const build = defineCommand({
  command: 'build',
  describe: 'Build the native addon for this machine',
  options: {
    mode: choice(
      MODES,
      'hybrid links the prebuilt llama.cpp libraries of node-llama-cpp, source compiles llama.cpp too (with CUDA, Metal or ' +
        'Vulkan if their toolkits are installed), auto takes the first that works. Defaults to $XPATCH_LLAMA, else auto',
    ),
    clean: flag('Recompile everything'),
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['Build what is out of date', 'build'],
    ['Compile llama.cpp for this machine; settings for CMake are in $XPATCH_CMAKE_ARGS', 'build --mode source'],
  ],
  run: async ({ mode, clean, json, quiet }, terminal) => {
    const progress = terminal.progress({ json, quiet });
    try {
      const result = await buildAddon({
        mode,
        clean,
        onProgress: ({ step, percent }) => progress.update(step, percent / 100),
      });
      progress.done();
      if (json) terminal.printJson(result);
      else terminal.print(`${describeResult(result)}\n`);
    } catch (error) {
      progress.done();
      const { name, message, step, hint } = error as Error & { step?: string; hint?: string };
      if (name !== 'BuildError') throw error;
      if (json) terminal.printJson({ error: { step, message, hint } });
      else terminal.say(`${describeFailure(error)}\n`);
      terminal.exitCode = EXIT.failed;
    }
  },
});
