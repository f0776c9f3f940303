import { checkTemplate, placeholderProblems, type Template } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import { quote, schemaProblems } from './schema.js';
import type { Condition, Experiment } from './types.js';

/**
 * Refuses an experiment whose settings are not allowed or do not fit together, wherever it comes from.
 * @throws {XpatchError} CONFIG_INVALID
 */
export function requireExperiment(experiment: Experiment): void {
  const [problem] = problemsOf(structuredClone(experiment));
  if (problem !== undefined) throw new XpatchError('CONFIG_INVALID', `${problem}.`);
}

/** What is wrong with an experiment; missing defaults are filled in. */
export function problemsOf(experiment: Experiment): string[] {
  const wrong = schemaProblems(experiment);
  return wrong.length > 0
    ? wrong
    : ruleProblems({ ...experiment, prompts: experiment.prompts ?? experiment.validation });
}

/** What a schema cannot say: how settings fit together. */
function ruleProblems(experiment: Experiment): string[] {
  const { conditions, tasks, seeds, shots, validation, test, prompts, template, layers, measure } = experiment;
  const { readPosition, maxTokens } = experiment;
  const problems: string[] = [];
  const need = (right: boolean, problem: string) => right || problems.push(problem);
  const examples = conditions.some(
    ({ kind, spec }) => kind !== 'bare' && kind !== 'majority' && spec !== 'instruction',
  );
  need(!examples || shots < validation, `validation: must be greater than shots (${shots}), not ${validation}`);
  const inPrompts = conditions.some(({ kind, spec }) => kind === 'prompt' && spec !== 'instruction');
  need(
    !inPrompts || shots < test,
    `test: must be greater than shots (${shots}), which prompts draw from it, not ${test}`,
  );
  need(prompts <= validation, `prompts: must be at most validation (${validation}), not ${prompts}`);
  const inFloat32 = (strength = 1) => Number.isFinite(Math.fround(strength));
  need(inFloat32(experiment.strength), `strength: must be a number that float32 can hold, not ${experiment.strength}`);
  if (measure === 'compute') {
    need(conditions.length === 0, 'conditions: must be empty with measure: compute, which has its own');
    need(tasks.length === 1, `tasks: measure: compute takes one task, not ${tasks.length}`);
    need(seeds.length === 1, `seeds: measure: compute takes one seed, not ${seeds.length}`);
  } else {
    need(conditions.length > 0, 'conditions: must not be empty');
  }
  if (typeof template === 'object') problems.push(...templateProblems(template));
  const names = conditions.map(({ name }) => name);
  for (const [i, condition] of conditions.entries()) {
    const at = `conditions[${i}]`;
    const { name, spec, control, swaps, prompts: own, steps, strength } = condition;
    need(inFloat32(strength), `${at}.strength: must be a number that float32 can hold, not ${strength}`);
    need(
      steps !== 'all' || maxTokens > 1,
      `${at}.steps: all patches generated tokens too, but the last one is never read: raise maxTokens above 1`,
    );
    problems.push(...placeholderProblems(`${at}.before`, condition.before, ['instruction']));
    problems.push(...placeholderProblems(`${at}.question`, condition.question, ['rival']));
    const first = names.indexOf(name);
    need(first === i, `${at}.name: ${quote(name)} is also the name of conditions[${first}]; give each its own name`);
    need(
      own === undefined || spec !== 'instruction',
      `${at}.prompts: an instruction is one prompt; leave out this field`,
    );
    need((own ?? 1) <= validation, `${at}.prompts: must be at most validation (${validation}), not ${own}`);
    need(
      swaps === undefined || spec === 'instruction' || spec === 'ensemble',
      `${at}.swaps: only an instruction has letters to swap; the spec is ${spec}`,
    );
    problems.push(...vectorProblems(at, condition, readPosition === 'dummy-query' ? shots : shots - 1));
    need(
      control !== 'shuffled-labels' || shots > (readPosition === 'dummy-query' ? 1 : 2),
      `${at}.control: shuffled-labels needs two whole examples in a prompt: shots from 3, or from 2 with readPosition: dummy-query`,
    );
    need(
      control !== 'shuffled-labels' || spec === 'text' || spec === 'image',
      `${at}.control: shuffled-labels needs the spec text or image, whose examples have labels, not ${spec}`,
    );
    need(
      control !== 'wrong-task' || tasks.length > 1,
      `${at}.control: wrong-task needs at least two tasks; name another, or leave out ${quote(name)} in a config file`,
    );
    need(
      control !== 'wrong-layer' || layers !== 'all',
      `${at}.control: wrong-layer means nothing with layers: all, which patches every layer`,
    );
  }
  return problems;
}

/** Of a patch that is no task vector. @param whole examples in a prompt that have their answers */
function vectorProblems(at: string, { vector, spec, heads, control }: Condition, whole: number): string[] {
  const problems: string[] = [];
  const need = (right: boolean, problem: string) => right || problems.push(`${at}.${problem}`);
  need(
    heads === undefined || vector === 'function',
    'heads: only a function vector is made of heads; set vector: function',
  );
  if (vector === undefined || vector === 'task') return problems;
  need(
    spec === 'text' || spec === 'image',
    `vector: a ${vector} vector needs the spec text or image, whose examples have labels, not ${spec}`,
  );
  need(
    whole > 1,
    `vector: a ${vector} vector needs two whole examples in a prompt, whose labels can be exchanged; raise shots`,
  );
  const [other, why] =
    vector === 'function'
      ? (['wrong-layer', 'a function vector is one direction at all layers; name another layer with layers'] as const)
      : ([
          'shuffled-labels',
          'a steering vector is the difference to shuffled labels; take random-vector or wrong-task',
        ] as const);
  need(control !== other, `control: ${why}`);
  need(control !== 'identity', 'control: identity patches no vector; leave vector out');
  return problems;
}

function templateProblems(template: Template): string[] {
  try {
    checkTemplate(template);
    return [];
  } catch (error) {
    return [(error as Error).message.replace(/\.$/, '')];
  }
}
