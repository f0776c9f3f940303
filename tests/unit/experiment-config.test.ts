import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { experimentOf, loadExperiment, parseConfig } from '../../src/experiment/config.js';
import { fitToModel } from '../../src/experiment/fit.js';
import { PRESETS } from '../../src/experiment/presets.js';
import { SCHEMA_FILE } from '../../src/experiment/schema.js';
import type { Condition, Experiment, Template } from '../../src/experiment/types.js';
import { listTasks } from '../../src/tasks/task.js';
import { expectError, temporaryFolder } from './helpers.js';

const folder = await temporaryFolder();
const NAMES = Object.keys(PRESETS);
/** What a preset cannot know. */
const GIVEN: Record<string, string[]> = {
  vqa: ['tasks=[questions.json]'],
  'llm-to-vlm': ['vectorModel=base.gguf'],
  quantisation: ['vectorModel=other.gguf'],
};

const patch = { name: 'Patch', kind: 'patch', spec: 'text' };
const of = (config: object) => experimentOf(config, { name: 'mine' }).experiment;
const withCondition = (condition: object) => ({ conditions: [condition] });

describe('errors name the path and what may stand there', () => {
  test.each<[string, object, RegExp]>([
    ['no conditions', {}, /^conditions: is missing\.$/],
    ['an empty list', { conditions: [] }, /^conditions: must not be empty\.$/],
    [
      'an unknown setting',
      { ...withCondition(patch), sed: [1] },
      /^sed: is not a setting here \(did you mean seeds\?\)\.$/,
    ],
    [
      'an unknown spec',
      { conditions: [patch, { ...patch, name: 'b', spec: 'txt' }] },
      /^conditions\[1\]\.spec: must be one of text, image, instruction, ensemble, not "txt"\.$/,
    ],
    [
      'an ensemble in a prompt',
      withCondition({ ...patch, kind: 'prompt', spec: 'ensemble' }),
      /^conditions\[0\]\.spec: must be one of text, image, instruction, not "ensemble"\.$/,
    ],
    [
      'a prompt without a spec',
      withCondition({ name: 'a', kind: 'prompt' }),
      /^conditions\[0\]\.spec: is missing; it must be one of text, image, instruction\.$/,
    ],
    [
      'an unknown kind',
      withCondition({ ...patch, kind: 'steer' }),
      /^conditions\[0\]\.kind: must be one of majority, bare, prompt, patch, not "steer"\.$/,
    ],
    ['no kind', withCondition({ name: 'a' }), /conditions\[0\]\.kind: /],
    [
      'a control of a prompt',
      withCondition({ name: 'a', kind: 'prompt', spec: 'text', control: 'wrong-task' }),
      /^conditions\[0\]\.control: is not a setting here; allowed are name, kind, query, spec, swaps, before, question\.$/,
    ],
    [
      'text for numbers',
      { ...withCondition(patch), seeds: ['one'] },
      /^seeds\[0\]: must be a whole number, not "one"\.$/,
    ],
    ['no list', { ...withCondition(patch), seeds: 1 }, /^seeds: must be a list, such as \[a, b\], not 1\.$/],
    ['a negative seed', { ...withCondition(patch), seeds: [-1] }, /^seeds\[0\]: must be at least 0, not -1\.$/],
    ['a seed twice', { ...withCondition(patch), seeds: [3, 4, 3] }, /^seeds: entries 0 and 2 are the same/],
    ['no tests', { ...withCondition(patch), test: 0 }, /^test: must be at least 1, not 0\.$/],
    [
      'infinity',
      { ...withCondition(patch), strength: Number.POSITIVE_INFINITY },
      /^strength: must be a number, not Infinity\.$/,
    ],
    [
      'an unknown placeholder before the query',
      withCondition({ ...patch, before: '{nope} x {instruction}' }),
      /^conditions\[0\]\.before: \{nope\} has no meaning here; allowed: \{instruction\}\.$/,
    ],
    [
      'placeholders of another field',
      { conditions: [patch, { name: 'b', kind: 'bare', before: '{rival}', question: '{instruction}?' }] },
      /^conditions\[1\]\.before: \{rival\} .*; conditions\[1\]\.question: \{instruction\} .*; allowed: \{rival\}\.$/,
    ],
    [
      'an unknown placeholder in a template',
      { ...withCondition(patch), template: { example: '{input} {hint} {output}', query: '{input} {hint}' } },
      /^template\.example: \{hint\} .* allowed: \{input\} and \{output\}; template\.query: \{hint\} .* \{input\}\.$/,
    ],
    [
      'unknown layers',
      { ...withCondition(patch), layers: 'best' },
      /^layers: must be one of validation, all, or a list of block outputs such as \[3, 4\], not "best"\.$/,
    ],
    ['a negative layer', { ...withCondition(patch), layers: [-1] }, /^layers\[0\]: must be at least 0, not -1\.$/],
    [
      'an unknown template',
      { ...withCondition(patch), template: 'papr' },
      /^template: must be one of paper, chat, or an object with example, query and stop, not "papr"\.$/,
    ],
    [
      'an unknown field of a template',
      { ...withCondition(patch), template: { querry: 'x' } },
      /^template\.querry: is not a setting here \(did you mean query\?\)\.$/,
    ],
    [
      'a template without input',
      { ...withCondition(patch), template: { query: 'A:' } },
      /^template: the query needs \{input\} once/,
    ],
    [
      'a stop that is no text',
      { ...withCondition(patch), template: { stop: 5 } },
      /^template\.stop: must be text or a list, such as \[a, b\], not 5\.$/,
    ],
    [
      'an empty stop',
      { ...withCondition(patch), template: { stop: ['x', ''] } },
      /^template\.stop\[1\]: must not be empty/,
    ],
    ['a name over two lines', withCondition({ ...patch, name: 'a\nb' }), /^conditions\[0\]\.name: must be one line/],
    ['a name of blanks', withCondition({ ...patch, name: ' \u00a0' }), /^conditions\[0\]\.name: must be one line/],
    ['an unknown preset', { preset: 'mian' }, /^preset: must be one of main, modalities, .*, not "mian"\.$/],
    [
      'two at once',
      { ...withCondition(patch), test: 0, shots: 'x' },
      /^shots: must be a whole number, not "x"; test: must be at least 1, not 0\.$/,
    ],
  ])('%s', (_, config, message) => expectError(() => of(config), 'CONFIG_INVALID', message));

  test('what a config says is shown on one line, whatever is in it', () =>
    expectError(
      () => of({ ...withCondition(patch), query: '\u202e\n\u001b[2J'.padEnd(500, 'x') }),
      'CONFIG_INVALID',
      /^query: must be one of text, image, not "\\u\{202e\}\\n\\u001b\[2Jx{30,}\.\.\.\.$/,
    ));
});

describe('settings that do not fit together', () => {
  test.each<[string, object, RegExp]>([
    [
      'one name twice',
      { conditions: [patch, patch] },
      /^conditions\[1\]\.name: "Patch" is also the name of conditions\[0\]/,
    ],
    [
      'a foreign patch',
      { conditions: [patch, { ...patch, name: 'a', foreign: true }, { ...patch, name: 'b', foreign: true }] },
      /^vectorModel: is missing; conditions\[1\] is foreign and needs it: name the model whose vectors to use \(--set vectorModel=FILE\)\.?$/,
    ],
    ['a model for nothing', { ...withCondition(patch), vectorModel: 'x' }, /^vectorModel: no condition is foreign/],
    [
      'a strength that float32 does not hold',
      { ...withCondition(patch), strength: -1e39 },
      /^strength: must be a number that float32 can hold, not -1e\+39/,
    ],
    [
      'such a strength of a condition',
      withCondition({ ...patch, strength: 3.5e38 }),
      /^conditions\[0\]\.strength: must be a number that float32 can hold/,
    ],
    [
      'a patch at tokens after the prompt where none is read',
      { ...withCondition({ ...patch, steps: 'all' }), maxTokens: 1 },
      /^conditions\[0\]\.steps: all patches generated tokens too.*maxTokens/,
    ],
    ['more shots than items', { ...withCondition(patch), shots: 30 }, /^validation: must be greater than shots \(30\)/],
    [
      'more prompts than items',
      { ...withCondition(patch), prompts: 31 },
      /^prompts: must be at most validation \(30\)/,
    ],
    ['the same of a condition', withCondition({ ...patch, prompts: 31 }), /^conditions\[0\]\.prompts: must be at most/],
    [
      'prompts of an instruction',
      withCondition({ ...patch, spec: 'instruction', prompts: 2 }),
      /^conditions\[0\]\.prompts: an instruction is one prompt/,
    ],
    [
      'conditions of the compute preset',
      { preset: 'compute', ...withCondition(patch) },
      /^conditions: must be empty with measure: compute/,
    ],
    ['two tasks of it', { preset: 'compute', tasks: ['a', 'b'] }, /^tasks: measure: compute takes one task, not 2/],
    ['swaps of examples', withCondition({ ...patch, swaps: 1 }), /^conditions\[0\]\.swaps: only an instruction/],
    [
      'labels of an instruction',
      withCondition({ ...patch, spec: 'instruction', control: 'shuffled-labels' }),
      /^conditions\[0\]\.control: shuffled-labels needs the spec text or image/,
    ],
    [
      'another task where there is one',
      { ...withCondition({ ...patch, control: 'wrong-task' }), tasks: ['food-color'] },
      /^conditions\[0\]\.control: wrong-task needs at least two tasks; name another, or leave out "Patch"/,
    ],
    [
      'a wrong layer of all',
      { ...withCondition({ ...patch, control: 'wrong-layer' }), layers: 'all' },
      /^conditions\[0\]\.control: wrong-layer means nothing/,
    ],
  ])('%s', (_, config, message) => expectError(() => of(config), 'CONFIG_INVALID', message));
});

describe('files', () => {
  test.each<[string, string, RegExp]>([
    ['a duplicate key', 'test: 1\ntest: 2\n', /is not valid YAML: Map keys must be unique at line 2/],
    ['an unknown tag', 'test: !run rm\n', /is not valid YAML: Unresolved tag: !run at line 1/],
    ['two documents', 'test: 1\n---\ntest: 2\n', /is not valid YAML: .*multiple documents/],
    ['broken YAML', 'tasks: [a\n', /is not valid YAML: .* at line 2/],
    ['broken JSON', '{"tasks": [', /is not valid YAML: /],
    ['a list', '- main\n', /is not an object of settings/],
    ['nothing', '', /is not an object of settings/],
    [
      'aliases that grow without bound',
      `a: &a [x, x, x, x, x, x, x, x, x, x]\n${'bcdefg'
        .split('')
        .map((name, i) => `${name}: &${name} [${Array(10).fill(`*${'abcdef'[i]}`)}]`)
        .join('\n')}`,
      /is not valid YAML: Excessive alias count/,
    ],
  ])('%s', (_, text, message) => expectError(() => parseConfig(text, 'mine.yaml'), 'CONFIG_INVALID', message));

  test('YAML and JSON of the same content are the same experiment', async () => {
    const config = { preset: 'modalities', seeds: [7], tasks: ['food-color', 'food-flavor'], template: { stop: '.' } };
    await writeFile(join(folder, 'a.json'), JSON.stringify(config));
    await writeFile(
      join(folder, 'b.yaml'),
      'preset: modalities # every pair\nseeds: [7]\ntasks:\n  - food-color\n  - food-flavor\ntemplate: {stop: "."}\n',
    );
    const [a, b] = [await loadExperiment(join(folder, 'a.json')), await loadExperiment(join(folder, 'b.yaml'))];
    expect(a).toEqual(b);
    expect(a.experiment).toMatchObject({
      name: 'modalities',
      title: PRESETS.modalities?.title,
      seeds: [7],
      test: 100,
      template: { example: 'Q:{input}\nA:{output}\n\n', query: 'Q:{input}\nA:', stop: '.' },
      conditions: PRESETS.modalities?.config.conditions,
    });
  });

  test('a file without a name is called as its file is', async () => {
    const file = join(folder, 'My Run_2.yml');
    await writeFile(file, 'conditions: [{name: Bare, kind: bare}]\n');
    expect((await loadExperiment(file)).experiment).toMatchObject({ name: 'my-run-2', title: 'my-run-2' });
  });

  test('errors name the file', async () => {
    const file = join(folder, 'wrong.yaml');
    await writeFile(file, 'test: 0\npreset: main\n');
    await expectError(() => loadExperiment(file), 'CONFIG_INVALID', /wrong\.yaml: test: must be at least 1, not 0\.$/);
    await writeFile(file, Buffer.from([0x74, 0xff, 0xfe]));
    await expectError(() => loadExperiment(file), 'CONFIG_INVALID', /wrong\.yaml: is not text in UTF-8/);
    await writeFile(file, `# ${'x'.repeat(1 << 20)}`);
    await expectError(() => loadExperiment(file), 'CONFIG_INVALID', /1048578 bytes, but may have at most 1 MiB/);
    await expectError(() => loadExperiment(join(folder, 'nope.yaml')), 'FILE_NOT_FOUND', /nope\.yaml.*Check the path/);
    await mkdir(join(folder, 'dir.yaml'));
    await expectError(() => loadExperiment(join(folder, 'dir.yaml')), 'CONFIG_INVALID', /dir\.yaml: it is a folder/);
    await expectError(
      () => loadExperiment('mian'),
      'CONFIG_INVALID',
      /no preset "mian"\. Did you mean main\? Presets: main, .*\.\/mian\.yaml/,
    );
    await expectError(() => loadExperiment('constructor'), 'CONFIG_INVALID', /no preset "constructor"/);
  });
});

describe('--set', () => {
  const set = async (...settings: string[]) => (await loadExperiment('main', settings)).experiment;

  test('values are YAML, and paths go into lists and objects', async () => {
    const experiment = await set(
      'seeds=[1,2]',
      'test=30',
      'strength=-.5',
      'op=add',
      'ignoreCase=true',
      'title="a = b"',
      'layers=[3]',
      'template.stop="\\n\\n"',
      'conditions.5.prompts=4',
      'conditions.12={name: More, kind: bare, question: "What, exactly?"}',
    );
    expect(experiment).toMatchObject({ seeds: [1, 2], test: 30, strength: -0.5, op: 'add', ignoreCase: true });
    expect(experiment).toMatchObject({ title: 'a = b', layers: [3], template: { stop: '\n\n' } });
    expect(experiment.conditions[5]).toEqual({ name: 'Text Patch', kind: 'patch', spec: 'text', prompts: 4 });
    expect(experiment.conditions[12]).toEqual({ name: 'More', kind: 'bare', question: 'What, exactly?' });
    expect(PRESETS.main?.config.conditions[5]).not.toHaveProperty('prompts');
  });

  test.each<[string, RegExp]>([
    ['seeds', /--set "seeds" is not key=value, such as seeds=\[1,2\]/],
    ['seeds=1,2', /seeds: must be a list, such as \[a, b\], not "1,2"/],
    ['seeds=[1', /--set seeds: the value is not valid YAML/],
    ['strength=.nan', /strength: must be a number, not NaN/],
    ['sedes=[1]', /sedes: is not a setting here \(did you mean seeds\?\)\.$/],
    ['test=', /test: must be a whole number, not null/],
    ['conditions.first.spec=text', /"first" is not the number of an entry/],
    ['conditions.40={}', /there are 12 entries; the next one is number 12/],
    ['conditions.99.prompts=3', /There are 12 entries, counted from 0/],
    ['conditions.0.spec.x=1', /conditions\.0\.spec has no settings inside it/],
    ['test.x=1', /test has no settings inside it/],
    ['__proto__.test=1', /"__proto__" is not the name of a setting/],
    ['conditions.2.spec=txt', /conditions\[2\]\.spec: must be one of text, image, instruction, not "txt"/],
  ])('%s is refused', (setting, message) => expectError(() => set(setting), 'CONFIG_INVALID', message));

  test('twice is refused: nobody can know which one was meant', () =>
    expectError(() => set('test=2', 'seeds=[1]', ' test =3'), 'CONFIG_INVALID', /^test is set twice/));
});

describe('presets', () => {
  test.each(NAMES)('%s is valid, in the sizes of the paper', async (name) => {
    const { experiment } = await loadExperiment(name, GIVEN[name]);
    expect(experiment.name).toBe(name);
    expect(PRESETS[name]?.shows).toMatch(/^[A-Z].*\.$/);
    if (name === 'compute') return;
    expect(experiment).toMatchObject({ seeds: [1, 2, 3], validation: 30, prompts: 30, test: 100, shots: 5 });
  });

  test('an experiment knows its preset, whatever it is called', async () => {
    const file = join(folder, 'main.yaml');
    await writeFile(file, 'query: text\nconditions: [{name: Bare, kind: bare}]\n');
    const own = (await loadExperiment(file)).experiment;
    expect(own.name).toBe('main');
    expect(own.preset).toBeUndefined();
    await writeFile(file, 'preset: main\nname: my-main\nconditions: [{name: Bare, kind: bare}]\n');
    expect((await loadExperiment(file)).experiment).toMatchObject({ preset: 'main', name: 'my-main' });
    await writeFile(file, 'preset: llm-to-vlm\n');
    expect((await loadExperiment(file, [], { baseModel: 'base' })).experiment.vectorModel).toBe('base');
    expect((await loadExperiment(file, ['vectorModel=mine'], { baseModel: 'base' })).experiment.vectorModel).toBe(
      'mine',
    );
    expect((await loadExperiment('main', [], { baseModel: 'base' })).experiment).not.toHaveProperty('vectorModel');
  });

  test('the template of the model stands in for the one of the paper alone', async () => {
    const template = { example: 'Q: {input}\nA: {output}\n', query: 'Q: {input}\nA:', stop: [',', '\n'] };
    const templateOf = async (source: string, settings: string[] = []) =>
      (await loadExperiment(source, settings, { template })).experiment.template;
    expect(await templateOf('main')).toEqual(template);
    expect(await templateOf('template')).toBe('chat');
    expect(await templateOf('main', ['template=paper'])).toBe('paper');
    expect(await templateOf('main', ['template.stop="."'])).toMatchObject({ query: 'Q:{input}\nA:', stop: '.' });
  });

  test('a misspelt task is named before what follows from it', () =>
    expectError(
      () => loadExperiment('main', ['tasks=[contry-capital]']),
      'TASK_INVALID',
      /no task named "contry-capital"\. Did you mean country-capital\? Shipped tasks: country-capital/,
    ));

  test('braces that hold no single word are text', () => {
    const before = 'Answer in JSON: {"a": 1}, {} or { x }.\n';
    expect(of(withCondition({ ...patch, before })).conditions[0]?.before).toBe(before);
  });

  test('what a preset cannot know is asked for', async () => {
    await expectError(
      () => loadExperiment('vqa'),
      'CONFIG_INVALID',
      /tasks: must not be empty: name shipped tasks, or files/,
    );
    await expectError(() => loadExperiment('llm-to-vlm'), 'CONFIG_INVALID', /vectorModel: is missing/);
  });

  test('a preset with one task leaves out what needs another, and says so', async () => {
    for (const preset of ['main', 'llm-to-vlm', 'function-vectors']) {
      const settings = preset === 'llm-to-vlm' ? ['vectorModel=other.gguf'] : [];
      const all = (await loadExperiment(preset, settings)).experiment.conditions;
      const one = await loadExperiment(preset, [...settings, 'tasks=[country-capital]']);
      const { experiment, notes } = fitToModel(one, true);
      expect(experiment.conditions).toEqual(all.filter(({ control }) => control !== 'wrong-task'));
      expect(notes).toEqual([expect.stringMatching(/^One task has no other .*: without .*Wrong Task/)]);
      expect(fitToModel(one, false).notes).toEqual([...notes, expect.stringContaining('no picture encoder')]);
    }
    const without = await loadExperiment('modalities', ['tasks=[country-capital]']);
    expect(fitToModel(without, true).notes).toEqual([]);
    // Conditions of one's own are asked for.
    const own = { preset: 'main', tasks: ['food-color'], ...withCondition({ ...patch, control: 'wrong-task' }) };
    await expectError(() => of(own), 'CONFIG_INVALID', /wrong-task needs at least two tasks/);
    expect(of({ preset: 'main', tasks: ['food-color'] }).conditions).toHaveLength(11);
  });

  test('a model without pictures gets the text part of a preset, or a refusal', async () => {
    const main = await loadExperiment('main');
    expect(fitToModel(main, true)).toEqual({ experiment: main.experiment, notes: [] });
    const { experiment, notes } = fitToModel(main, false);
    expect(experiment.query).toBe('text');
    expect(experiment.conditions.map(({ name }) => name)).toEqual(
      main.experiment.conditions.map(({ name }) => name).filter((name) => !name.startsWith('Image')),
    );
    expect(notes).toEqual(['The model has no picture encoder: text queries, without Image Prompt, Image Patch.']);
    const compute = fitToModel(await loadExperiment('compute'), false);
    expect([compute.experiment.query, compute.notes]).toEqual([
      'text',
      ['The model has no picture encoder: text queries.'],
    ]);
    const refused = /^Image Prompt and Image Patch need pictures.*--mmproj/;
    const toText = await loadExperiment('image-to-text');
    await expectError(() => fitToModel(toText, false), 'IMAGE_UNSUPPORTED', refused);
    const spelt = await loadExperiment('main', ['query=image']);
    await expectError(
      () => fitToModel(spelt, false),
      'IMAGE_UNSUPPORTED',
      /^No Context and 10 more conditions need pictures/,
    );
    const pictures = await loadExperiment('compute', ['query=image']);
    await expectError(() => fitToModel(pictures, false), 'IMAGE_UNSUPPORTED', /^The measurement needs pictures/);
  });
});

// The compiler checks that these lists are complete and no longer than the types; the tests compare them with the schema.
type Keys<T> = Record<keyof Required<T>, true>;
const EXPERIMENT: Keys<Experiment> = {
  preset: true,
  name: true,
  title: true,
  tasks: true,
  seeds: true,
  query: true,
  style: true,
  template: true,
  shots: true,
  validation: true,
  test: true,
  prompts: true,
  readPosition: true,
  layers: true,
  op: true,
  strength: true,
  maxTokens: true,
  ignoreCase: true,
  scores: true,
  vectorModel: true,
  measure: true,
  conditions: true,
};
const CONDITION: Keys<Condition> = {
  name: true,
  kind: true,
  query: true,
  spec: true,
  vector: true,
  heads: true,
  op: true,
  strength: true,
  layers: true,
  steps: true,
  control: true,
  foreign: true,
  prompts: true,
  swaps: true,
  before: true,
  question: true,
};
const TEMPLATE: Keys<Template> = { example: true, query: true, stop: true };
const KIND: Record<Condition['kind'], true> = { majority: true, bare: true, prompt: true, patch: true };
const SPEC: Record<NonNullable<Condition['spec']>, true> = {
  text: true,
  image: true,
  instruction: true,
  ensemble: true,
};
const CONTROL: Record<NonNullable<Condition['control']>, true> = {
  'random-vector': true,
  'wrong-task': true,
  'shuffled-labels': true,
  'wrong-layer': true,
  identity: true,
};
const CHOICES = {
  query: { text: true, image: true } satisfies Record<Experiment['query'], true>,
  readPosition: { 'last-example': true, 'dummy-query': true } satisfies Record<Experiment['readPosition'], true>,
  op: { replace: true, add: true } satisfies Record<Experiment['op'], true>,
};

describe('the published schema and the type are in step', () => {
  const schema = JSON.parse(readFileSync(SCHEMA_FILE, 'utf8'));
  const { properties, $defs } = schema;
  const kinds = properties.conditions.items.oneOf as {
    properties: Record<string, { const?: string; enum?: string[] }>;
  }[];
  const sorted = (keys: object) => Object.keys(keys).sort();
  const kindOf = (name: string) => kinds.find((kind) => kind.properties.kind?.const === name);

  test('it is a schema', () => {
    expect(new Ajv2020().validateSchema(schema)).toBe(true);
  });

  test('defaults', async () => {
    expect(properties.tasks.default).toEqual(await listTasks());
    const filled = of(withCondition({ name: 'Bare', kind: 'bare' }));
    const absent = ['preset', 'vectorModel', 'measure'];
    expect(sorted(filled)).toEqual(sorted(EXPERIMENT).filter((key) => !absent.includes(key)));
  });

  test('settings', () => {
    expect(sorted(properties)).toEqual(sorted(EXPERIMENT));
    expect(sorted(properties.template.then.properties)).toEqual(sorted(TEMPLATE));
    expect([...new Set(kinds.flatMap((kind) => Object.keys(kind.properties)))].sort()).toEqual(sorted(CONDITION));
  });

  test('choices', () => {
    expect(kinds.map((kind) => kind.properties.kind?.const).sort()).toEqual(sorted(KIND));
    expect(kindOf('patch')?.properties.spec?.enum?.toSorted()).toEqual(sorted(SPEC));
    expect(kindOf('patch')?.properties.control?.enum?.toSorted()).toEqual(sorted(CONTROL));
    expect($defs.modality.enum.toSorted()).toEqual(sorted(CHOICES.query));
    expect(properties.readPosition.enum.toSorted()).toEqual(sorted(CHOICES.readPosition));
    expect(properties.op.enum.toSorted()).toEqual(sorted(CHOICES.op));
    expect(properties.preset.enum).toEqual(NAMES);
  });
});
