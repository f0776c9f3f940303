import type { Context } from '../model/context.js';
import { requireFiring } from '../model/generate.js';
import { asRow, type RowInput } from '../model/pass.js';
import { LOGITS_HELD } from '../model/tracked.js';
import { type AnswerFormat, answersBehind, answerTokens, requireApart } from '../tasks/answer-tokens.js';
import { XpatchError } from '../util/errors.js';
import { logLikelihoods } from './scores.js';

/** How likely a text is after a prompt. */
export interface OptionScore {
  readonly option: string;
  /** Ids of its tokens after the prompt, including what a template puts between them. */
  readonly tokens: readonly number[];
  /** Sum of the log-probabilities of these tokens, in nats. */
  readonly logLikelihood: number;
  /** The same per token: their mean. */
  readonly perToken: number;
}

/** One prompt with the texts that may follow it. */
export interface OptionsToScore {
  /**
   * A prompt, or a row with interventions and edges. Their positions are those of the prompt, whatever follows it; the tokens of an
   * option, but its last, are what `steps` calls generated.
   */
  readonly query: RowInput;
  /** Texts as they follow the prompt, each once, including any space. */
  readonly options: readonly string[];
  /** How a template writes answers after the query. Defaults to the option itself. */
  readonly format?: AnswerFormat;
}

/**
 * Log-likelihoods of given options as continuations of prompts. Prompts share passes; the prompt, and what options have in common,
 * are decoded once.
 *
 * @returns for each query the scores of its options, in order
 * @throws {XpatchError} INVALID_ARGUMENT for a query without options, or with a repeated or empty one; MARK_AMBIGUOUS if the tokenizer
 *   merges the end of the prompt with an option; and as `Context.pass`
 */
export async function scoreOptions(
  context: Context,
  queries: readonly OptionsToScore[],
  { signal }: { signal?: AbortSignal } = {},
): Promise<OptionScore[][]> {
  const { model } = context;
  const rows = [];
  for (const { query, options, format = answersBehind('', '', '') } of queries) {
    requireOptions(options);
    const { prompt: given, interventions, edges } = asRow(query);
    const prompt = await model.prompt(given, { signal });
    const answers = await answerTokens(model, prompt.parts, format, options);
    for (const [i, answer] of answers.entries()) requireApart(answer, prompt.parts, options[i] as string);
    const row = { prompt, interventions, edges, options, answers: answers.map(({ tokens }) => tokens) };
    requireFiring([row], Math.max(...row.answers.map(({ length }) => length)));
    rows.push(row);
  }
  const scores = await logLikelihoods(context, rows, ({ answers }) => answers, { maxBytes: LOGITS_HELD, signal });
  return rows.map(({ options, answers }, r) =>
    options.map((option, o) => {
      const tokens = answers[o] as readonly number[];
      const logLikelihood = scores[r]?.[o] as number;
      return { option, tokens, logLikelihood, perToken: logLikelihood / tokens.length };
    }),
  );
}

function requireOptions(options: readonly string[]): void {
  const problem =
    options.length === 0
      ? 'There are no options to score'
      : options.includes('')
        ? 'An option is empty'
        : new Set(options).size < options.length
          ? `An option is repeated: ${options.map((option) => JSON.stringify(option)).join(', ')}`
          : undefined;
  if (problem) throw new XpatchError('INVALID_ARGUMENT', `${problem}. Give each text once.`);
}
