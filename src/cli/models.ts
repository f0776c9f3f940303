import type { CommandModule } from 'yargs';
import { info, list } from './models-list.js';
import { pull, rm } from './models-pull.js';

/** `xpatch models`: what there is, and getting it. */
export const models: CommandModule = {
  command: 'models',
  describe: 'List, download, convert and remove models',
  builder: (yargs) =>
    yargs
      .command([list, info, pull, rm] as unknown as CommandModule[])
      .demandCommand(1, 'Name a command: list, info, pull or rm.'),
  handler: () => undefined,
};
