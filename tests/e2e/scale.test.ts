// An experiment in parts, one stage after the other, by hand and by the job files of examples/scale: the run is that of one process.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Ajv } from 'ajv';
import { parseAllDocuments } from 'yaml';
import { PACKAGE_ROOT } from '../../install/layout.mjs';
import { commandLine, MAIN } from './cli-helpers.js';

const cli = commandLine();
const SCALE = join(PACKAGE_ROOT, 'examples', 'scale');
const CONFIG = {
  tasks: ['country-capital', 'food-color'],
  seeds: [1, 2],
  query: 'image',
  shots: 3,
  validation: 4,
  test: 5,
  prompts: 2,
  conditions: [
    { name: 'Majority', kind: 'majority' },
    { name: 'No Context', kind: 'bare' },
    { name: 'Text Prompt', kind: 'prompt', spec: 'text' },
    { name: 'Text Patch', kind: 'patch', spec: 'text' },
    { name: 'Shuffled', kind: 'patch', spec: 'text', control: 'shuffled-labels' },
  ],
};
const EVAL = ['eval', 'scale.json', '-m', 'demo', '--device', 'cpu', '--quiet'];
/** Mostly what starting commands takes. */
const SMALL = ['eval', 'small.json', ...EVAL.slice(2)];
const linesOf = (run: string) =>
  readFileSync(join(cli.folder, run, 'results.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .sort();
const manifestOf = (run: string) => JSON.parse(readFileSync(join(cli.folder, run, 'manifest.json'), 'utf8'));

async function ok(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli.run(args);
  expect([args, code, stderr]).toEqual([args, 0, '']);
  return stdout;
}

beforeAll(async () => {
  writeFileSync(join(cli.folder, 'scale.json'), JSON.stringify(CONFIG));
  await ok(...EVAL, '-o', 'one');
});

describe('stages', () => {
  test('in parts of their own are merged to the run of one process, which verify accepts', async () => {
    for (const part of [1, 2, 3]) await ok(...EVAL, '--stage', 'validation', '--shard', `${part}/3`, '-o', `v${part}`);
    expect(await ok('merge', 'v1', 'v2', 'v3', '-o', 'v', '--quiet')).toMatch(/--stage test --layer-from v --shard/);
    // With the vectors of the test, so that its parts need not make them.
    expect(manifestOf('v').vectors).toEqual(manifestOf('one').vectors);
    const test = ['--stage', 'test', '--layer-from', 'v'];
    for (const part of [1, 2]) await ok(...EVAL, ...test, '--shard', `${part}/2`, '-o', `t${part}`);
    await ok('merge', 't1', 't2', '-o', 'merged', '--quiet');
    expect(linesOf('merged')).toEqual(linesOf('one'));
    const [merged, one] = [manifestOf('merged'), manifestOf('one')];
    expect([merged.configHash, merged.vectors, merged.headline]).toEqual([one.configHash, one.vectors, one.headline]);
    const { ok: fine, checks } = await cli.json('verify', 'merged', '--device', 'cpu', '--sample', '6');
    expect([fine, checks.filter(({ state }: { state: string }) => state !== 'ok')]).toEqual([true, []]);
    // Parts are checked too, but for tables that they do not have.
    for (const run of ['v1', 'v', 't2']) {
      const { ok: whole, checks: parts } = await cli.json('verify', run, '--sample', '0');
      const undone = parts
        .filter(({ state }: { state: string }) => state !== 'ok')
        .map(({ name }: { name: string }) => name);
      expect([run, whole, undone]).toEqual([run, true, ['tables', 'model']]);
    }
  });

  test('with vectors of another model are verified without it, in every shard', async () => {
    const own = { name: 'Text Patch', kind: 'patch', spec: 'text' };
    const foreign = ['instruction', 'text'].map((spec) => ({ ...own, name: `LLM ${spec}`, spec, foreign: true }));
    const conditions = [CONFIG.conditions[1], own, ...foreign];
    copyFileSync(join(PACKAGE_ROOT, 'models/demo/xpatch-demo-base-f16.gguf'), join(cli.folder, 'base.gguf'));
    // So many items that fewer conditions would make other batches.
    const config = { ...CONFIG, seeds: [1], layers: [2], test: 60, conditions, vectorModel: 'base.gguf' };
    writeFileSync(join(cli.folder, 'foreign.json'), JSON.stringify(config));
    await ok('eval', 'foreign.json', ...EVAL.slice(2), '--shard', '2/3', '-o', 'foreign');
    rmSync(join(cli.folder, 'base.gguf'));
    const { ok: fine, checks } = await cli.json('verify', 'foreign', '--device', 'cpu', '--sample', '40');
    const answers = checks.find(({ name }: { name: string }) => name === 'answers');
    expect([fine, answers]).toEqual([
      true,
      { name: 'answers', state: 'ok', detail: expect.stringMatching(/^40 queries asked again/) },
    ]);
  });

  test('without parts are the same run', async () => {
    await ok(...EVAL, '--stage', 'validation', '-o', 'whole-v');
    const test = [...EVAL.slice(0, -1), '--stage', 'test', '--layer-from', 'whole-v', '-o', 'whole-t'];
    const { code, stderr } = await cli.run(test);
    const { length } = linesOf('whole-v');
    expect([code, stderr]).toEqual([
      0,
      expect.stringContaining(`${length} answers of the validation taken from whole-v`),
    ]);
    expect(stderr).not.toContain('resuming');
    expect(linesOf('whole-t')).toEqual(linesOf('one'));
    expect(manifestOf('whole-t').configHash).toBe(manifestOf('one').configHash);
  });

  test('are refused where they make no sense', async () => {
    for (const [args, message] of [
      [['--stage', 'test'], /--stage test and --layer-from go together/],
      [['--layer-from', 'v'], /--stage test and --layer-from go together/],
      [['--stage', 'validation', '--set', 'layers=[3]'], /names its layers/],
      [['--queue', 'redis://127.0.0.1', '--shard', '1/2'], /--queue divides the run/],
      [['--kernels', 'any'], /--kernels is about the workers/],
    ] as const) {
      const { code, message: said } = await cli.error(...EVAL, ...args, '-o', 'no');
      expect([code, said]).toEqual(['INVALID_ARGUMENT', expect.stringMatching(message)]);
    }
    const part = await cli.run([...EVAL, '--stage', 'test', '--layer-from', 'v1', '-o', 'no']);
    expect(part).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/RUN_INVALID: v1 is a part of the validation/),
    });
  });
});

describe('examples/scale', () => {
  const bin = mkdtempSync(join(tmpdir(), 'xpatch-bin-'));
  afterAll(() => rmSync(bin, { recursive: true }));
  beforeAll(async () => {
    const small = { ...CONFIG, tasks: CONFIG.tasks.slice(0, 1), seeds: [1], query: 'text', validation: 4, test: 4 };
    writeFileSync(
      join(cli.folder, 'small.json'),
      JSON.stringify({ ...small, conditions: CONFIG.conditions.slice(1, 4) }),
    );
    await ok(...SMALL, '-o', 'small');
  });
  const bash = (...args: string[]) =>
    spawnSync('bash', args, {
      cwd: cli.folder,
      encoding: 'utf8',
      env: {
        ...process.env,
        PATH: `${bin}:${process.env.PATH}`,
        HOME: bin,
        JOBS: '2',
        XPATCH: `${process.execPath} ${MAIN}`,
      },
    });

  test('gnu-parallel.sh makes the run of one process', () => {
    const { status, stderr } = bash(join(SCALE, 'gnu-parallel.sh'), 'parallel', '2', ...SMALL.slice(1, -1));
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    expect(linesOf('parallel')).toEqual(linesOf('small'));
  });

  test('slurm.sh hands in four jobs, each after the one before, that make the run of one process', () => {
    // In place of Slurm: runs what it is handed, every task of an array, and refuses what waits for a job that is not there.
    writeFileSync(
      join(bin, 'sbatch'),
      `#!/usr/bin/env bash
set -euo pipefail
while (($#)); do case $1 in
  --wrap) command=$2; shift;; --array) tasks=$2; shift;; --dependency) [[ -e $HOME/job-\${2#afterok:} ]]; shift;;
  --job-name) name=$2; shift;; esac; shift; done
export SLURM_ARRAY_TASK_COUNT=\${tasks:+\${tasks#1-}}
for SLURM_ARRAY_TASK_ID in $(seq \${SLURM_ARRAY_TASK_COUNT:-1}); do export SLURM_ARRAY_TASK_ID; bash -euc "$command" >&2; done
touch $HOME/job-$name; echo $name
`,
      { mode: 0o755 },
    );
    writeFileSync(join(bin, 'xpatch'), `#!/usr/bin/env bash\nexec ${process.execPath} ${MAIN} "$@"\n`, { mode: 0o755 });
    const { status, stdout, stderr } = bash(join(SCALE, 'slurm.sh'), 'slurm', '2', ...SMALL.slice(1));
    expect([status, stderr]).toEqual([0, expect.any(String)]);
    expect(stdout).toBe('jobs xpatch-validation, xpatch-choose, xpatch-test and xpatch-merge make slurm\n');
    expect(linesOf('slurm')).toEqual(linesOf('small'));
  });

  test('kubernetes.yaml is of indexed Jobs whose commands read what those before them write', () => {
    const text = readFileSync(join(SCALE, 'kubernetes.yaml'), 'utf8');
    const jobs = parseAllDocuments(text, { strict: true }).map((document) => {
      expect([...document.errors, ...document.warnings]).toEqual([]);
      return document.toJS();
    });
    const validate = new Ajv({ allErrors: true }).compile(JOB);
    for (const job of jobs)
      expect([job.metadata.name, validate(job), validate.errors]).toEqual([job.metadata.name, true, null]);
    expect(jobs.map(({ metadata }) => metadata.labels.stage)).toEqual(['validation', 'choose', 'test', 'merge']);
    for (const { spec } of jobs) {
      const [{ command, args }] = spec.template.spec.containers;
      expect(command).toEqual(['bash', '-euc']);
      for (const script of args) expect(spawnSync('bash', ['-n', '-c', script], { encoding: 'utf8' }).stderr).toBe('');
    }
    // What one Job writes another one reads.
    const [validation, choose, tests, merge] = jobs.map(({ spec }) => spec.template.spec.containers[0].args.join(''));
    expect([validation, choose, tests, merge]).toEqual([
      expect.stringMatching(/--stage validation .* -o main\.validation-\$part/),
      expect.stringMatching(/merge main\.validation-\* -o main\.validation\n/),
      expect.stringMatching(/--stage test --layer-from main\.validation .* -o main\.test-\$part/),
      expect.stringMatching(/merge main\.test-\* -o main\n/),
    ]);
  });
});

/** Of batch/v1, what is used here: a field that is not in it is a mistake. */
const strict = (properties: object, required: string[] = Object.keys(properties)) => ({
  type: 'object',
  properties,
  required,
  additionalProperties: false,
});
const text = { type: 'string', minLength: 1 };
const count = { type: 'integer', minimum: 1 };
const JOB = strict({
  apiVersion: { const: 'batch/v1' },
  kind: { const: 'Job' },
  metadata: strict({ name: { type: 'string', pattern: '^[a-z][a-z0-9-]{0,50}$' }, labels: strict({ stage: text }) }),
  spec: {
    ...strict(
      {
        completions: count,
        parallelism: count,
        completionMode: { const: 'Indexed' },
        backoffLimitPerIndex: count,
        backoffLimit: count,
        template: strict({
          spec: strict({
            restartPolicy: { const: 'Never' },
            containers: {
              type: 'array',
              items: strict(
                {
                  name: text,
                  image: text,
                  workingDir: text,
                  env: { type: 'array', items: strict({ name: text, value: text }) },
                  command: { type: 'array', items: text },
                  args: { type: 'array', items: text },
                  resources: strict({ requests: { type: 'object' }, limits: { type: 'object' } }),
                  volumeMounts: { type: 'array', items: strict({ name: text, mountPath: text }) },
                },
                ['name', 'image', 'command', 'args', 'volumeMounts'],
              ),
            },
            volumes: {
              type: 'array',
              items: strict({ name: text, persistentVolumeClaim: strict({ claimName: text }) }),
            },
          }),
        }),
      },
      ['template'],
    ),
    dependencies: { completionMode: ['completions', 'parallelism', 'backoffLimitPerIndex'] },
  },
});
