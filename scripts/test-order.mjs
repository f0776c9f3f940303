// The order of test files: the longest first, so that none of them begins when the others are done and one core has nothing to do.
// Jest itself knows only how long files took here before, which a clean clone does not.
import Sequencer from '@jest/test-sequencer';

/** Files that take more than 20 seconds of a core, the longest first. */
const LONG = [
  'native/vulkan',
  'faults/eval',
  'faults/study',
  'e2e/cli-eval',
  'models/demo',
  'e2e/scale',
  'models/experiment',
  'native/rpc',
  'e2e/page',
  'e2e/queue',
  'e2e/cli-figures',
  'e2e/cli-models',
  'e2e/view',
  'e2e/examples',
  'models/docs-commands',
  'e2e/install',
  'faults/store',
  'parity/transformers',
  'e2e/cli-eval-vlm',
  'native/damage',
  'models/planner',
  'e2e/gpu-check',
  'e2e/queue-kernels',
  'e2e/cli-chat',
  'faults/convert',
];
const place = ({ path }) => {
  const at = LONG.findIndex((name) => path.endsWith(`/tests/${name}.test.ts`));
  return at < 0 ? LONG.length : at;
};

export default class LongestFirst extends Sequencer {
  sort(tests) {
    return [...super.sort(tests)].sort((a, b) => place(a) - place(b));
  }
}
