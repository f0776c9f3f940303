import type { CommandModule } from 'yargs';
import { type BuildMode, buildAddon, MODES } from '../../install/build.mjs';
import { describeFailure, describeResult, progressPrinter } from '../../install/print.mjs';

interface BuildArguments {
  mode?: BuildMode;
  clean: boolean;
  json: boolean;
}

/** `xpatch build`: makes the native addon again, as the install step does, but fails when it cannot. */
export const build: CommandModule<unknown, BuildArguments> = {
  command: 'build',
  describe: 'Build the native addon for this machine',
  builder: (yargs) =>
    yargs
      .option('mode', {
        choices: MODES,
        describe:
          'hybrid links the prebuilt llama.cpp libraries of node-llama-cpp, source compiles llama.cpp too (with CUDA, Metal or ' +
          'Vulkan when their toolkits are there), auto takes the first that works. Defaults to $XPATCH_LLAMA, else auto',
      })
      .option('clean', { type: 'boolean', default: false, describe: 'Compile everything again' })
      .option('json', { type: 'boolean', default: false, describe: 'Print the result as JSON' })
      .example('$0 build', 'Build what is out of date')
      .example('$0 build --mode source', 'Compile llama.cpp for this very machine')
      .example('XPATCH_CMAKE_ARGS="-DGGML_CUDA=OFF" $0 build --mode source', 'The same with settings for CMake'),
  handler: async ({ mode, clean, json }) => {
    const progress = progressPrinter(process.stderr);
    try {
      const result = await buildAddon({ mode, clean, onProgress: progress.update });
      progress.done();
      console.log(json ? JSON.stringify(result, null, 2) : describeResult(result));
    } catch (error) {
      progress.done();
      const { name, message, step, hint } = error as Error & { step?: string; hint?: string };
      if (name !== 'BuildError') throw error;
      if (json) console.log(JSON.stringify({ error: { step, message, hint } }, null, 2));
      else console.error(describeFailure(error));
      process.exitCode = 1;
    }
  },
};
