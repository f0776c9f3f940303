import type { Model } from '../model/model.js';
import { isText, textOf } from '../prompt/text-parts.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { PartList, type Template } from './template.js';

/** What of a model it takes to know the tokens of an answer. */
export type Tokenizer = Pick<Model, 'assemble' | 'detokenize'>;

/** How a template writes answers. */
export interface AnswerFormat {
  /** What an example has between the end of the query and its answer: nothing, a space, a line break, text of a chat template. */
  readonly lead: string;
  /** Whether examples continue from where a query ends; if not, only the spaces before their answers are taken for `lead`. */
  readonly continues: boolean;
  /** `lead` and the answer. */
  answer(output: string): PromptPart[];
}

const INPUT = '{input}';
const OUTPUT = '{output}';

/** How a template that is written out has its answers. */
export function plainAnswers({ example, query }: Pick<Template, 'example' | 'query'>): AnswerFormat {
  // A question is put into a query after its input, and what comes before that does not matter here.
  const [from, to] = [example.indexOf(INPUT) + INPUT.length, example.indexOf(OUTPUT)];
  const behindInput = to >= from ? example.slice(from, to) : undefined;
  return answersBehind(query.slice(query.indexOf(INPUT) + INPUT.length), behindInput, example.slice(0, to));
}

/**
 * How answers are written where queries end in `query`.
 * @param example what examples have in the same place up to their answer, if they have it there
 * @param before what examples have before their answer
 */
export function answersBehind(query: string, example: string | undefined, before: string): AnswerFormat {
  const continues = example?.startsWith(query) ?? false;
  const blanks = /\s$/.test(query) ? '' : (/\s*$/.exec(before)?.[0] ?? '');
  const lead = continues ? (example as string).slice(query.length) : blanks;
  return {
    lead,
    continues,
    answer(output) {
      const parts = new PartList();
      parts.text(lead);
      parts.fill(OUTPUT, { input: '', output }, 'text');
      return parts.marked().slice(0, -1);
    },
  };
}

/** An answer as the tokens that a template appends to a query. */
export interface AnswerTokens {
  /** Everything from the end of the query to the end of the answer, `lead` included; not what ends the answer. */
  readonly tokens: readonly number[];
  /** Index of the first of them that shows something of the answer: neither a part of `lead` alone nor blank. */
  readonly first: number;
  /** The tokenizer merges the end of the query with what follows; `tokens` then begin with the one that holds both. */
  readonly merged: boolean;
}

/**
 * The tokens of answers: those that the query, written on as an example is, has more than the query alone. Whoever scores an answer or
 * looks for its first token asks here. Pictures of the query are not encoded.
 *
 * @param query parts of a prompt that ends where the answer begins
 * @throws {XpatchError} as `Model.prompt`
 */
export async function answerTokens(
  model: Tokenizer,
  query: readonly PromptPart[],
  { lead, answer }: AnswerFormat,
  outputs: readonly string[],
): Promise<AnswerTokens[]> {
  const parts = query.filter((part) => typeof part === 'string' || !('mark' in part));
  const tokensOf = async (more: readonly PromptPart[]) => [...(await model.assemble([...parts, ...more])).tokens];
  const before = await tokensOf([]);
  const led = lead === '' ? before : await tokensOf([lead]);
  const found: AnswerTokens[] = [];
  for (const output of outputs) {
    const whole = await tokensOf(answer(output));
    const start = common(before, whole);
    const tokens = whole.slice(start);
    const visible = tokens.findIndex((token, i) => start + i >= common(led, whole) && !isBlank(model, token));
    found.push({ tokens, first: Math.max(visible, 0), merged: start < before.length || tokens.length === 0 });
  }
  return found;
}

/** @throws {XpatchError} MARK_AMBIGUOUS when the tokenizer merges the end of the query with the answer */
export function requireApart({ merged }: AnswerTokens, query: readonly PromptPart[], output: string): void {
  if (!merged) return;
  const message = `The tokenizer merges the end of the query, ${endOf(query)}, with the answer ${JSON.stringify(output)}`;
  throw new XpatchError(
    'MARK_AMBIGUOUS',
    `${message}: leave out scores, or use a template whose query ends differently, such as without a space.`,
  );
}

/** The last line of a query, quoted. */
export function endOf(query: readonly PromptPart[]): string {
  const shown = query.filter(isText).map(textOf).join('');
  return JSON.stringify(shown.split('\n').at(-1) || shown.slice(-1));
}

/**
 * What the first tokens of an answer say, up to the one that shows something: a token may be a lone space, or a part of a character.
 * Where none does it is the text of all of them.
 */
export function firstPiece(
  model: Pick<Model, 'detokenize'>,
  tokens: readonly number[],
): { text: string; shows: boolean } {
  for (let n = 1; n <= tokens.length; n++) {
    const text = model.detokenize(tokens.slice(0, n)).replace(/\uFFFD+$/, ''); // a character that is not whole yet
    if (text.trim() !== '') return { text, shows: true };
  }
  return { text: tokens.length > 0 ? model.detokenize(tokens) : '', shows: false };
}

function isBlank(model: Pick<Model, 'detokenize'>, token: number): boolean {
  return model.detokenize([token]).trim() === '';
}

function common(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}
