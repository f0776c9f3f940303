import type { Experiment, Plan } from '../experiment/types.js';
import type { Context } from '../model/context.js';
import { fewShotPrompt, queryPrompt } from '../tasks/prompts.js';
import { loadTask } from '../tasks/task.js';
import type { Estimate } from './eval-protocol.js';

/** Rows of the measurement, and new tokens for each. */
const ROWS = 8;
const NEW_TOKENS = 8;
/** How much of a core's work each further core adds: they share memory. Measured with two. */
const GAIN = 0.8;
/** Bytes of a line without its prompt, measured on runs of the demo model. */
const LINE_BYTES = 330;

/**
 * What a plan takes with `parallel` items at a time, from a short measurement on this model: a few prompts of examples, what follows them, and one picture.
 * Rows that share much, and short ones, run at a different speed, so it is only an estimate.
 */
export async function estimateCost(
  context: Context,
  experiment: Experiment,
  plan: Plan,
  parallel: number,
  signal: AbortSignal,
): Promise<Estimate> {
  const { model } = context;
  const pictures = plan.pictures > 0;
  const task = await loadTask(experiment.tasks[0] as string, { pictures, style: experiment.style });
  const items = task.items.filter(({ image }) => image !== undefined || !pictures);
  const shots = items.slice(0, Math.min(experiment.shots, items.length - 1));
  const queries = items.slice(-Math.min(ROWS, items.length - shots.length));
  const parts = queries.map((item) => fewShotPrompt(shots, 'text', item, 'text'));
  const rows = await Promise.all(
    parts.map(async (some) => ({ prompt: await model.prompt(some, { signal }), topK: 1 })),
  );
  const seconds = async (work: () => Promise<unknown>) => {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
  };
  await context.pass(rows.slice(0, 1), { signal }); // the first one warms up
  // One by one: prompts that share their examples can only be counted whole.
  const positions = rows.reduce((sum, { prompt }) => sum + prompt.length, 0);
  const passSeconds = await seconds(async () => {
    for (const row of rows) await context.pass([row], { signal });
  });
  const together = await seconds(() => context.pass(rows, { signal }));
  const generating = await seconds(() => context.generate(rows, { maxTokens: NEW_TOKENS, signal }));
  const positionsPerSecond = positions / passSeconds;
  const newTokensPerSecond = (rows.length * NEW_TOKENS) / Math.max(generating - together, generating / 10);
  const [picture] = items;
  const secondsPerPicture =
    pictures && picture ? await seconds(() => model.prompt(queryPrompt(picture, 'image'), { signal })) : undefined;

  const record = JSON.stringify(rows[0]?.prompt.record() ?? {}).length;
  const asked = plan.queries.filter(({ stage }) => stage === 'test');
  const withExamples = new Set(experiment.conditions.filter(({ kind }) => kind === 'prompt').map(({ name }) => name));
  const disk = plan.queries.reduce((sum, { count }) => sum + count * LINE_BYTES, 0);
  const prompts = asked.reduce(
    (sum, { condition, count }) =>
      sum + (withExamples.has(condition) ? count * record : (count * record) / shots.length),
    0,
  );
  const { nLayers, nEmbd } = model.info;
  const vectors = plan.vectors * (nLayers * nEmbd * 4 + experiment.prompts * record);
  return {
    seconds:
      (plan.tokens / positionsPerSecond + plan.newTokens / newTokensPerSecond) / (1 + GAIN * (parallel - 1)) +
      plan.pictures * (secondsPerPicture ?? 0),
    parallel,
    disk: Math.round(disk + prompts + vectors),
    positionsPerSecond,
    newTokensPerSecond,
    ...(secondsPerPicture !== undefined && { secondsPerPicture }),
  };
}
