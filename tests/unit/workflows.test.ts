// The workflows of GitHub Actions cannot be run here: what they name must at least be there.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parseDocument } from 'yaml';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

interface Step {
  uses?: string;
  run?: string;
}
interface Job {
  uses?: string;
  'runs-on'?: string;
  'timeout-minutes'?: number;
  needs?: string | string[];
  steps?: Step[];
  strategy?: { matrix: Record<string, unknown[]> & { include?: Record<string, unknown>[] } };
}
interface Workflow {
  name: string;
  on: object;
  permissions: object;
  jobs: Record<string, Job>;
}

const folder = join(PACKAGE_ROOT, '.github', 'workflows');
const { scripts, engines } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
const texts = new Map(readdirSync(folder).map((file) => [file, readFileSync(join(folder, file), 'utf8')]));

function workflow(file: string): Workflow {
  const document = parseDocument(texts.get(file) as string, { uniqueKeys: true, strict: true });
  expect([...document.errors, ...document.warnings]).toEqual([]);
  return document.toJS();
}

test('there is one for CI, one for prebuilt addons and one for releases', () => {
  expect([...texts.keys()].sort()).toEqual(['ci.yml', 'prebuild.yml', 'release.yml']);
});

test('CI covers three systems and every supported major version of Node.js', () => {
  const matrix = workflow('ci.yml').jobs.check?.strategy?.matrix;
  expect(matrix?.os?.map((name) => String(name).replace(/-.*/, ''))).toEqual(['ubuntu', 'macos', 'windows']);
  expect(matrix?.node).toEqual([20, 22, 24]);
  expect(engines.node).toBe('^20.17.0 || >=22.9.0');
});

describe.each([...texts.keys()])('%s', (file) => {
  test('has triggers, rights of its own, and jobs that end', () => {
    const { name, on, permissions, jobs } = workflow(file);
    expect([typeof name, typeof on, typeof permissions]).toEqual(['string', 'object', 'object']);
    for (const [id, job] of Object.entries(jobs)) {
      for (const other of [job.needs ?? []].flat()) expect(Object.keys(jobs)).toContain(other);
      if (job.uses) continue; // another workflow of ours: it is tested itself
      expect({ id, runsOn: typeof job['runs-on'], limit: typeof job['timeout-minutes'] }).toEqual({
        id,
        runsOn: 'string',
        limit: 'number',
      });
      expect(job.steps?.length).toBeGreaterThan(0);
      for (const step of job.steps as Step[]) expect(Number('uses' in step) + Number('run' in step)).toBe(1);
    }
  });

  test('pins every action to a commit, with its version beside it', () => {
    const uses = (texts.get(file) as string).split('\n').filter((line) => /\buses:/.test(line));
    expect(uses.length).toBeGreaterThan(0);
    for (const line of uses) {
      const [, own] = /uses: \.\/(\S+)$/.exec(line) ?? [];
      if (own) expect(existsSync(join(PACKAGE_ROOT, own))).toBe(true);
      else expect(line).toMatch(/uses: actions\/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    }
  });

  test('runs scripts and files that exist', () => {
    for (const { steps = [] } of Object.values(workflow(file).jobs)) {
      for (const { run = '' } of steps) {
        for (const [, script] of run.matchAll(/\bnpm run (?:--silent )?([\w:-]+)/g))
          expect(Object.keys(scripts)).toContain(script);
        for (const [, names = ''] of run.matchAll(/--selectProjects ([a-z0-9 ]+)/g))
          for (const name of names.trim().split(' ')) expect(existsSync(join(PACKAGE_ROOT, 'tests', name))).toBe(true);
        const [, path] = /^(?:node )?(\.?[\w-]+\/\S+)/.exec(run) ?? [];
        if (path) expect(existsSync(join(PACKAGE_ROOT, path))).toBe(true);
      }
    }
  });

  test('uses only names that its matrix has', () => {
    for (const { strategy, ...job } of Object.values(workflow(file).jobs)) {
      const { include = [], ...lists } = strategy?.matrix ?? {};
      const known = new Set([...Object.keys(lists), ...include.flatMap(Object.keys)]);
      for (const [, name] of JSON.stringify(job).matchAll(/matrix\.(\w+)/g)) expect([...known]).toContain(name);
    }
  });
});
