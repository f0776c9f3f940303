import type { CommandModule } from 'yargs';
import { modelsConvert } from './models-convert.js';
import { info, list } from './models-list.js';
import { pull, rm } from './models-pull.js';
import { withExamples } from './options.js';

/** `xpatch models`: what there is, and getting it. */
export const models: CommandModule = {
  command: 'models',
  describe: 'List, download, convert and remove models',
  builder: (yargs) =>
    withExamples(yargs.command([list, info, pull, modelsConvert, rm] as unknown as CommandModule[]), [
      ['What there is', 'models list'],
      ["One of the paper's models", 'models pull llava-1.5-7b'],
    ]).demandCommand(1, 'Name a command: list, info, pull, convert or rm.'),
  handler: () => undefined,
};
