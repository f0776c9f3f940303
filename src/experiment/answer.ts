import type { Context } from '../model/context.js';
import type { PassRow } from '../model/pass.js';
import type { Intervention, OnProgress, TokenScore } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { DELIMITER } from '../tasks/prompts.js';
import type { TaskItem } from '../tasks/task.js';
import { XpatchError } from '../util/errors.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { Divergences } from './divergence.js';
import { type AskedRow, answerTokens, logLikelihoods, rowsWithin, tokenScore } from './scores.js';
import { lenientMatch, majorityAnswer, strictMatch } from './scoring.js';
import { type Cell, groupByPrompt, type Study } from './study.js';
import type { Condition, QueryKey, ResultLine } from './types.js';

/** Some queries of one cell: all conditions on these items. */
export interface Batch {
  readonly study: Study;
  readonly cell: Cell;
  readonly stage: QueryKey['stage'];
  readonly items: readonly TaskItem[];
  readonly conditions: readonly Condition[];
  /** Where patches are written. */
  readonly layers: readonly number[];
  /** Vectors of patch conditions by the condition's name; `identity` has none. */
  readonly vectors: ReadonlyMap<string, { readonly name: string; readonly vector: TaskVector }>;
  /** Bound of logits held at a time. */
  readonly maxBytes: number;
}

/**
 * How far the state that identity writes back may be from the one that is there, and the best token's probability move. It was read in
 * another batch, where quantised weights round differently: by 0.021 of its norm in SmolLM2-135M in Q4_1.
 */
const IDENTITY_TOLERANCE = { state: 0.1, probability: 0.05 };

interface Asked extends AskedRow {
  readonly item: TaskItem;
  readonly condition: Condition;
  readonly parts: readonly PromptPart[];
  readonly layer?: number;
  /** Of identity: norm of the state, and the best next token without the patch. */
  readonly own?: { readonly norm: number; readonly top: TokenScore };
}

type Given = Pick<ResultLine, 'answer' | 'firstToken'> & Partial<ResultLine>;

/**
 * Asks all queries of a batch in common passes and scores the answers. What the queries of an item have in common is decoded
 * once.
 *
 * @throws {XpatchError} as `Context.generate`; NATIVE_FAILURE when writing a state back changes it
 */
export async function answerBatch(context: Context, batch: Batch, onProgress?: OnProgress): Promise<ResultLine[]> {
  const { stage, conditions, items, cell } = batch;
  const rows = await buildRows(context, batch);
  const given =
    stage === 'validation'
      ? await firstTokens(context, rows, onProgress)
      : await answers(context, batch, rows, onProgress);
  const lines = rows.map((row, i) => lineOf(batch, row, given[i] as Given));
  const majority = majorityAnswer(cell.split.validation) ?? '';
  for (const condition of conditions.filter(({ kind }) => kind === 'majority')) {
    for (const item of items) {
      const strict = strictMatch(majority, item.output, batch.study.experiment);
      lines.push(lineOf(batch, { item, condition }, { answer: majority, firstToken: majority, strict }));
    }
  }
  return lines;
}

/** Rows of one prompt stand together, so that they share it. */
async function buildRows(context: Context, batch: Batch): Promise<Asked[]> {
  const { study, cell, stage, items, conditions, layers, vectors } = batch;
  const { op, strength } = study.experiment;
  const rows: Asked[] = [];
  for (const item of items) {
    for (const { parts, conditions: members } of groupByPrompt(study, cell, stage, conditions, item)) {
      const prompt = await context.model.prompt(parts);
      const states = members.some(({ control }) => control === 'identity')
        ? await ownStates(context, prompt, layers)
        : undefined;
      for (const condition of members) {
        const row = { item, condition, parts, prompt };
        if (condition.kind !== 'patch') rows.push({ ...row, interventions: [] });
        else if (condition.control === 'identity' && states) {
          for (const [i, layer] of layers.entries()) {
            const { value, norm } = states.at(i);
            const edit: Intervention = { layers: layer, positions: DELIMITER, op: 'replace', value };
            rows.push({ ...row, layer, interventions: [edit], own: { norm, top: states.top } });
          }
        } else {
          const { vector } = vectors.get(condition.name) as { vector: TaskVector };
          for (const layer of layers) {
            const edit = vector.at(layer, { op, strength, positions: DELIMITER });
            rows.push({ ...row, layer, interventions: [edit] });
          }
        }
      }
    }
  }
  return rows;
}

/** A query's own states at the token that is patched. What comes before it stays in the cache for the queries themselves. */
async function ownStates(context: Context, prompt: Prompt, layers: readonly number[]) {
  const row = { prompt, capture: { layers, positions: DELIMITER }, topK: 1 };
  const { top, states } = await context.run(row, { keep: true });
  return {
    top: top[0] as TokenScore,
    at: (i: number) => {
      const value = states.row(i, 0);
      return { value, norm: Math.hypot(...value) };
    },
  };
}

async function firstTokens(context: Context, rows: readonly Asked[], onProgress?: OnProgress): Promise<Given[]> {
  if (rows.length === 0) return [];
  const results = await context.pass(
    rows.map(({ prompt, interventions }) => ({ prompt, interventions, topK: 1 })),
    { onProgress },
  );
  return results.map(({ top, interventions }) => {
    const text = top?.[0]?.text ?? '';
    const delta = interventions[0]?.delta;
    return { answer: text, firstToken: text, ...(delta !== undefined && { delta }) };
  });
}

async function answers(
  context: Context,
  batch: Batch,
  rows: readonly Asked[],
  onProgress?: OnProgress,
): Promise<Given[]> {
  const { model } = context;
  const { experiment, format } = batch.study;
  const { maxTokens, scores } = experiment;
  const likely = scores.includes('likelihood');
  const ranks = likely && rows.length > 0 ? await answerRanks(context, batch, rows) : undefined;
  // Logits of the whole vocabulary come back for every row: only so many at a time.
  const held = scores.includes('probability') ? rowsWithin(batch.maxBytes, model) : Number.POSITIVE_INFINITY;
  const given: Given[] = [];
  const divergences = new Divergences(experiment.conditions);
  while (given.length < rows.length) {
    const some = rows.slice(given.length, given.length + held);
    const generations = await context.generate(
      some.map(
        ({ prompt, interventions, own }): PassRow => ({
          prompt,
          interventions,
          ...(scores.includes('probability') && { logits: 'last' }),
          ...(own && { topK: 1 }),
        }),
      ),
      {
        maxTokens,
        stop: [format.stop],
        onProgress: (p) => onProgress?.({ done: given.length + (some.length * p.done) / p.total, total: rows.length }),
      },
    );
    const scored = generations.map(({ text, tokens, finish, logits, top, interventions }, i): Given => {
      const { item, own, parts, prompt } = some[i] as Asked;
      const delta = interventions[0]?.delta;
      if (own) requireUnchanged(own, delta as number, top?.[0] as TokenScore);
      if (logits) divergences.add(given.length + i, some[i] as Asked, logits.data);
      return {
        answer: text,
        firstToken: tokens.length ? model.detokenize(tokens.slice(0, 1)) : '',
        // An answer that was cut off is not a whole one.
        strict: finish !== 'length' && strictMatch(text, item.output, experiment),
        ...(finish === 'length' && { cut: true as const }),
        ...(logits && tokenScore(logits.data, answerTokens(model, parts, item.output)[0] as number)),
        ...ranks?.[given.length + i],
        ...(delta !== undefined && { delta }),
        prompt: prompt.record(batch.cell.split.task.pictures),
      };
    });
    given.push(...scored);
  }
  for (const [i, kl] of divergences.all()) given[i] = { ...(given[i] as Given), kl };
  return given;
}

/** Where the expected answer stands among all answers of the task. */
async function answerRanks(context: Context, { cell, maxBytes }: Batch, rows: readonly Asked[]) {
  const known = [...new Set(cell.split.task.items.map(({ output }) => output))];
  // All templates end alike, so an answer has the same tokens after every query: one pass for all of them.
  const tokens = known.map((answer) => answerTokens(context.model, (rows[0] as Asked).parts, answer));
  const scores = await logLikelihoods(context, rows, tokens, { maxBytes });
  return scores.map((row, i): Pick<ResultLine, 'answerRank' | 'logLikelihood'> => {
    const own = row[known.indexOf((rows[i] as Asked).item.output)] as number;
    return { answerRank: row.filter((score) => score > own).length, logLikelihood: own };
  });
}

function requireUnchanged({ norm, top }: NonNullable<Asked['own']>, delta: number, patched: TokenScore): void {
  const moved = Math.abs(patched.probability - top.probability);
  if (delta <= IDENTITY_TOLERANCE.state * norm && moved <= IDENTITY_TOLERANCE.probability) return;
  const change = `changed it by ${delta.toPrecision(3)} (its norm is ${norm.toPrecision(3)}) and the best token's probability by ${moved.toPrecision(3)}`;
  throw new XpatchError(
    'NATIVE_FAILURE',
    `Writing a query's own state back ${change}: patches do not do what they say. Run xpatch doctor.`,
  );
}

function lineOf(
  { study, cell, stage, vectors }: Batch,
  { item, condition, layer }: Pick<Asked, 'item' | 'condition' | 'layer'>,
  { answer, firstToken, ...more }: Given,
): ResultLine {
  const { task, seed } = cell.split;
  const vector = vectors.get(condition.name)?.name;
  const rival = condition.question?.includes('{rival}') ? cell.rival?.answers.get(item.input) : undefined;
  return {
    stage,
    condition: condition.name,
    task: task.name,
    seed,
    item: item.input,
    ...(layer !== undefined && { layer }),
    domain: task.domain,
    expected: item.output,
    answer,
    firstToken,
    lenient: lenientMatch(firstToken, item.output, study.experiment),
    ...(rival !== undefined && { rival }),
    ...(vector !== undefined && { vector }),
    ...more,
  };
}
