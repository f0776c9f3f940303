import { availableParallelism } from 'node:os';

// Projects: unit needs no addon, native loads it with tiny models, parity compares these with transformers, models runs the demo models, e2e starts the built command line, faults kills it.
// The project's own fixtures are not tried in another process first; what tests that sets it back.
process.env.XPATCH_TRUST ??= '1';

const common = {
  globalSetup: '<rootDir>/scripts/bundle-client.mjs', // no test sees an old script of the report's page
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
  // other copies of package.json: node-gyp's and CMake's trees, and what tests install
  modulePathIgnorePatterns: ['<rootDir>/.cache/', '<rootDir>/build/', '<rootDir>/dist/'],
};

const project = (name) => ({ ...common, displayName: name, testMatch: [`<rootDir>/tests/${name}/**/*.test.ts`] });

export default {
  // A test often waits for disks, servers, browsers and timers: one more worker than cores computes meanwhile.
  maxWorkers: availableParallelism() + 1,
  testSequencer: '<rootDir>/scripts/test-order.mjs',
  testTimeout: 300_000, // a bound on a hang, not on speed: CI shares its cores
  projects: ['unit', 'native', 'parity', 'models', 'e2e', 'faults'].map(project),
};
