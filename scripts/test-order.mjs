// The order of test files: the longest first, so that none of them begins when the others are done and one core has nothing to do.
// Jest itself knows only how long files took here before, which a clean clone does not.
import Sequencer from '@jest/test-sequencer';

/** Files that take more than 20 seconds of a core, the longest first. */
const LONG = [
  'native/vulkan',
  'faults/study',
  'faults/eval',
  'e2e/cli-eval',
  'e2e/queue',
  'e2e/scale',
  'native/rpc',
  'e2e/page',
  'native/products',
  'e2e/install',
  'e2e/gpu-check',
  'e2e/queue-kernels',
  'e2e/cli-figures',
  'e2e/examples',
  'e2e/cli-chat',
  'models/experiment',
  'models/planner',
  'faults/store',
  'e2e/cli-models',
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
