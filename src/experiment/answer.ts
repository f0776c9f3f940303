import type { Context } from '../model/context.js';
import type { Generation } from '../model/generate.js';
import type { PassRow } from '../model/pass.js';
import { rowsWithin } from '../model/tracked.js';
import type { OnProgress } from '../model/types.js';
import { worthwhileCells } from '../model/waves.js';
import type { PromptPart } from '../prompt/types.js';
import { type AnswerTokens, answerTokens, firstPiece, requireApart } from '../tasks/answer-tokens.js';
import { choicesOf, rightAnswers } from '../tasks/answers.js';
import { DELIMITER } from '../tasks/prompts.js';
import type { TaskItem } from '../tasks/task.js';
import type { TaskVector } from '../vectors/task-vector.js';
import { evenly } from './batches.js';
import { Divergences } from './divergence.js';
import { type OwnState, ownStates, requireUnchanged } from './identity.js';
import { type AskedRow, logLikelihoods, rowBehind, tokenScore } from './scores.js';
import { lenientMatch, majorityAnswer, strictMatch } from './scoring.js';
import { type Cell, groupByPrompt, kindOf, type Study } from './study.js';
import type { Condition, QueryKey, ResultLine } from './types.js';

/** Some queries of one cell: all conditions on these items. */
export interface Batch {
  readonly study: Study;
  readonly cell: Cell;
  readonly stage: QueryKey['stage'];
  readonly items: readonly TaskItem[];
  readonly conditions: readonly Condition[];
  /** Where patches are written, by the condition's name. */
  readonly layers: Readonly<Record<string, readonly number[]>>;
  /** Vectors of patch conditions by the condition's name; `identity` has none. */
  readonly vectors: ReadonlyMap<string, { readonly name: string; readonly vector: TaskVector }>;
  /** Bound on logits held at a time. */
  readonly maxBytes: number;
}

interface Asked extends AskedRow {
  readonly item: TaskItem;
  readonly condition: Condition;
  readonly parts: readonly PromptPart[];
  readonly layer?: number;
  /** For identity: what was there before it. */
  readonly own?: OwnState;
}

type Given = Pick<ResultLine, 'answer' | 'firstToken'> & Partial<ResultLine>;

/**
 * Asks all queries of a batch in common passes and scores the answers. What the queries of an item share is decoded
 * once.
 *
 * @throws {XpatchError} as `Context.generate`; NATIVE_FAILURE when writing a state back changes it
 */
export async function answerBatch(context: Context, batch: Batch, onProgress?: OnProgress): Promise<ResultLine[]> {
  const parts = evenly(batch.items, await itemsAtOnce(context, batch));
  const lines: ResultLine[] = [];
  for (const [i, items] of parts.entries()) {
    const onPart: OnProgress = (p) => onProgress?.({ done: i * p.total + p.done, total: parts.length * p.total });
    lines.push(...(await answerItems(context, { ...batch, items }, onPart)));
  }
  return lines;
}

async function answerItems(context: Context, batch: Batch, onProgress: OnProgress): Promise<ResultLine[]> {
  const { stage, conditions, items, cell } = batch;
  const rows = await buildRows(context, batch);
  const given =
    stage === 'validation'
      ? await firstPieces(context, batch, rows, onProgress)
      : await answers(context, batch, rows, onProgress);
  const lines = rows.map((row, i) => lineOf(batch, row, given[i] as Given));
  const majority = majorityAnswer(cell.split.validation) ?? '';
  for (const condition of conditions.filter(({ kind }) => kind === 'majority')) {
    for (const item of items) {
      const strict = strictMatch(majority, rightAnswers(item), batch.study.experiment);
      lines.push(lineOf(batch, { item, condition }, { answer: majority, firstToken: majority, strict }));
    }
  }
  return lines;
}

const isIdentity = ({ control }: Condition) => control === 'identity';

/** Rows of one prompt, by what is asked of it. */
function groupsOf({ study, cell, stage, items, conditions }: Batch) {
  return items.flatMap((item) =>
    groupByPrompt(study, cell, stage, conditions, item).map((group) => ({ item, ...group })),
  );
}

/** How many items can have their own states read in one pass, and fit in the cache with all that continues from them. */
async function itemsAtOnce({ model, options: { nCtx } }: Context, batch: Batch): Promise<number> {
  let [read, cells] = [0, 0];
  for (const item of batch.items) {
    let [ownRead, ownCells] = [0, 0];
    for (const { parts, conditions } of groupsOf({ ...batch, items: [item] })) {
      if (!conditions.some(isIdentity)) continue;
      const answers = conditions.reduce((n, { name }) => n + (batch.layers[name]?.length ?? 1), 0);
      const { length } = await model.prompt(parts);
      ownRead += length;
      ownCells += length + answers * (1 + batch.study.experiment.maxTokens);
    }
    read = Math.max(read, ownRead);
    cells = Math.max(cells, ownCells);
  }
  if (read === 0) return batch.items.length;
  return Math.max(1, Math.floor(Math.min(worthwhileCells(model.info) / read, nCtx / cells)));
}

/** Rows of one prompt are adjacent, so that they share it; those that continue from what the cache holds come first. */
async function buildRows(context: Context, batch: Batch): Promise<Asked[]> {
  const { study, layers, vectors } = batch;
  const groups = [];
  for (const group of groupsOf(batch)) groups.push({ ...group, prompt: await context.model.prompt(group.parts) });
  const own = groups.filter(({ conditions }) => conditions.some(isIdentity));
  const read = own.map(({ prompt, conditions }) => ({
    prompt,
    layers: [...new Set(conditions.filter(isIdentity).flatMap(({ name }) => layers[name] ?? []))],
  }));
  const states = await ownStates(context, read, { keep: true });
  const rows: Asked[] = [];
  for (const group of [...own, ...groups.filter((one) => !own.includes(one))]) {
    const { item, parts, prompt } = group;
    for (const condition of group.conditions) {
      const at = layers[condition.name] ?? [];
      const row = { item, condition, parts, prompt };
      if (condition.kind !== 'patch') rows.push({ ...row, interventions: [] });
      else if (isIdentity(condition)) {
        const stateAt = states[own.indexOf(group)] as (typeof states)[0];
        for (const layer of at) {
          const state = stateAt(layer);
          rows.push({ ...row, layer, interventions: [state.writtenBack], own: state });
        }
      } else {
        const { vector } = vectors.get(condition.name) as { vector: TaskVector };
        const { experiment } = study;
        const { strength = experiment.strength, steps } = condition;
        const { op = kindOf(condition) === 'task' ? experiment.op : 'add' } = condition;
        for (const layer of at) {
          const edit = vector.at(layer, { op, strength, positions: DELIMITER, steps });
          rows.push({ ...row, layer, interventions: [edit] });
        }
      }
    }
  }
  return rows;
}

/** First pieces of answers: nearly always the next token of one pass. Only rows whose tokens show nothing yet continue. */
async function firstPieces(
  context: Context,
  { study: { experiment, format } }: Batch,
  rows: readonly Asked[],
  onProgress?: OnProgress,
): Promise<Given[]> {
  const { model } = context;
  type Said = { row: Asked; tokens: number[]; ended?: boolean; delta?: number };
  const said = rows.map((row): Said => ({ row, tokens: [] }));
  const goesOn = ({ tokens, ended }: Said) =>
    !ended &&
    !firstPiece(model, tokens).shows &&
    !stopsOf(format).some((stop) => model.detokenize(tokens).includes(stop));
  for (let live = said, n = 0; live.length > 0 && n < experiment.maxTokens; live = live.filter(goesOn), n++) {
    const results = await context.pass(
      live.map(({ row: { prompt, interventions }, tokens }) => ({
        prompt: prompt.append(tokens),
        interventions,
        topK: 1,
      })),
      n === 0 ? { onProgress } : {},
    );
    for (const [i, { top, interventions }] of results.entries()) {
      const one = live[i] as Said;
      const token = top?.[0]?.token as number;
      one.ended = model.isEnd(token);
      if (!one.ended) one.tokens.push(token);
      one.delta ??= interventions[0]?.delta;
    }
  }
  return said.map(({ tokens, delta }) => {
    const { text } = firstPiece(model, tokens);
    return { answer: text, firstToken: text, ...(delta !== undefined && { delta }) };
  });
}

/** If examples have the stop text before their answers, an answer may begin with it: its end is looked for after that. */
function stopsOf({ stop, lead }: Batch['study']['format']): string[] {
  return stop.filter((text) => !lead.includes(text));
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
  const ranks = scores.includes('likelihood') ? await answerRanks(context, batch, rows) : [];
  const likely = scores.includes('probability');
  // Logits of the whole vocabulary come back for every row: only this many at a time.
  const held = likely ? rowsWithin(batch.maxBytes, model) : Number.POSITIVE_INFINITY;
  const given: Given[] = [];
  const divergences = new Divergences(experiment.conditions);
  while (given.length < rows.length) {
    const some = rows.slice(given.length, given.length + held);
    const generations = await context.generate(
      some.map(
        ({ prompt, interventions, own }): PassRow => ({
          prompt,
          interventions,
          ...(likely && { logits: 'last' }),
          ...(own && { topK: 1 }),
        }),
      ),
      {
        maxTokens,
        stop: stopsOf(format),
        onProgress: (p) => onProgress?.({ done: given.length + (some.length * p.done) / p.total, total: rows.length }),
      },
    );
    const probabilities = likely
      ? await firstScores(
          context,
          batch,
          some.map((row, i) => ({ ...row, logits: generations[i]?.logits?.data as Float32Array })),
        )
      : [];
    for (const [i, { interventions, top = [] }] of generations.entries()) {
      const { prompt, own } = some[i] as Asked;
      if (own) await requireUnchanged(context, prompt, own, { delta: interventions[0]?.delta, top: top[0] });
    }
    const scored = generations.map(({ tokens, logits, interventions, ...said }, i): Given => {
      const { item, prompt } = some[i] as Asked;
      const delta = interventions[0]?.delta;
      if (logits) divergences.add(given.length + i, some[i] as Asked, logits.data);
      const { text, finish } = endOf(said, format);
      return {
        answer: text,
        firstToken: firstPiece(model, tokens).text,
        // An answer that was cut off is incomplete.
        strict: finish !== 'length' && strictMatch(text, rightAnswers(item), experiment),
        ...(finish === 'length' && { cut: true as const }),
        ...probabilities[i],
        ...ranks[given.length + i],
        ...(delta !== undefined && { delta }),
        prompt: prompt.record(batch.cell.split.task.pictures),
      };
    });
    given.push(...scored);
  }
  for (const [i, kl] of divergences.found) given[i] = { ...(given[i] as Given), kl };
  return given;
}

/** The answer up to its first stop, of the stops that generation did not look for. */
function endOf({ text, finish }: Pick<Generation, 'text' | 'finish'>, { stop, lead }: Batch['study']['format']) {
  const behind = stop.filter((one) => lead.includes(one));
  if (behind.length === 0) return { text, finish };
  const begun = text.trimStart();
  const ends = behind.map((one) => begun.indexOf(one)).filter((at) => at >= 0);
  return ends.length === 0 ? { text: begun, finish } : { text: begun.slice(0, Math.min(...ends)), finish: 'stop' };
}

/** The tokens of answers after the query of a row, in order. */
async function tokensBehind(context: Context, { study }: Batch, { parts }: Asked, outputs: readonly string[]) {
  const found = await answerTokens(context.model, parts, study.format, outputs);
  for (const [i, tokens] of found.entries()) requireApart(tokens, parts, outputs[i] as string);
  return found;
}

/**
 * Probability and rank of the first token of the right answers: if tokens come before it, after those. Of several right answers the one
 * with the most probable first token counts.
 */
async function firstScores(context: Context, batch: Batch, rows: readonly (Asked & { logits: Float32Array })[]) {
  const known = new Map<unknown, readonly AnswerTokens[]>();
  for (const row of rows) {
    const { parts, item } = row;
    if (!known.has(parts)) known.set(parts, await tokensBehind(context, batch, row, rightAnswers(item)));
  }
  const best: ReturnType<typeof tokenScore>[] = [];
  const take = (r: number, logits: Float32Array, token: number) => {
    const score = tokenScore(logits, token);
    if (score.probability >= (best[r]?.probability ?? 0)) best[r] = score;
  };
  const later: (PassRow & { r: number; token: number })[] = [];
  for (const [r, row] of rows.entries()) {
    for (const { tokens, first } of known.get(row.parts) as readonly AnswerTokens[]) {
      const token = tokens[first] as number;
      if (first === 0) take(r, row.logits, token);
      else later.push({ r, token, ...rowBehind(row, tokens.slice(0, first)) });
    }
  }
  const held = rowsWithin(batch.maxBytes, context.model);
  for (let from = 0; from < later.length; from += held) {
    const some = later.slice(from, from + held);
    const results = await context.pass(some);
    for (const [i, { r, token }] of some.entries()) take(r, results[i]?.logits?.data as Float32Array, token);
  }
  return best;
}

/** Where the likeliest of the right answers ranks among the choices of the item, or all answers of the task. */
async function answerRanks(context: Context, batch: Batch, rows: readonly Asked[]) {
  const { cell, maxBytes } = batch;
  const all = choicesOf({}, cell.split.task.items);
  const tokens = new Map<unknown, number[][]>();
  for (const row of rows) {
    if (tokens.has(row.parts)) continue;
    const found = await tokensBehind(context, batch, row, row.item.choices ?? all);
    tokens.set(
      row.parts,
      found.map((answer) => [...answer.tokens]),
    );
  }
  const scores = await logLikelihoods(context, rows, ({ parts }) => tokens.get(parts) as number[][], { maxBytes });
  return scores.map((row, i): Pick<ResultLine, 'answerRank' | 'logLikelihood'> => {
    const { item } = rows[i] as Asked;
    const known = item.choices ?? all;
    const own = Math.max(...rightAnswers(item).map((answer) => row[known.indexOf(answer)] as number));
    return { answerRank: row.filter((score) => score > own).length, logLikelihood: own };
  });
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
    ...(item.also && { also: item.also }),
    answer,
    firstToken,
    lenient: lenientMatch(firstToken, rightAnswers(item), study.experiment),
    ...(rival !== undefined && { rival }),
    ...(vector !== undefined && { vector }),
    ...more,
  };
}
