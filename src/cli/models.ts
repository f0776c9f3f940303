import { defineGroup } from './command.js';
import { modelsConvert } from './models-convert.js';
import { info, list } from './models-list.js';
import { pull, rm } from './models-pull.js';

/** `xpatch models`: lists models and gets them. */
export const models = defineGroup({
  command: 'models',
  describe: 'List, download, convert and remove models',
  subcommands: [list, info, pull, modelsConvert, rm],
  examples: [
    ['All models', 'models list'],
    ["One of the paper's models", 'models pull llava-1.5-7b'],
  ],
});
