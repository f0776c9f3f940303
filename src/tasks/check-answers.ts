import { groupBy } from '../util/group.js';
import { Pace } from '../util/pace.js';
import { answersCollide, normaliseAnswer, rightAnswers } from './answers.js';
import { type Finding, type FirstTokens, finding, quote, quoteSome } from './findings.js';

interface Entry {
  readonly index: number;
  readonly input: string;
  readonly output: string;
  readonly also?: readonly string[];
}

/**
 * What is wrong with answers: how they are written, and which of them a score cannot tell apart. Answers that are right for the same
 * items need not be told apart.
 *
 * @throws {XpatchError} ABORTED
 */
export async function answerFindings(
  entries: readonly Entry[],
  firstTokens: FirstTokens | undefined,
  signal?: AbortSignal,
): Promise<Finding[]> {
  const pace = new Pace(signal);
  const answers = new Answers(entries);
  const pairs = await prefixes(answers.texts, pace);
  const everywhere = answers.texts.filter((answer) => answers.having([answer]).length === entries.length);
  return [
    ...(entries.length > 1 ? everywhere : []).map((answer) =>
      finding('error', 'one-answer', [], `all items have the answer ${quote(answer)}: it says nothing about them`),
    ),
    ...(await pace.map(entries, spelling)).flat(),
    ...pairs.flatMap(([short, begun]) => {
      const longer = begun.filter((other) => answers.differ(short, other));
      if (longer.length === 0) return [];
      const message = `the answer ${quote(short)} begins ${quoteSome(longer)}: the lenient score takes one for the other`;
      return finding('warning', 'answer-prefix', answers.having([short, ...longer]), message);
    }),
    ...(firstTokens ? await tokenFindings(answers, firstTokens, pace) : []),
  ];
}

/** The different answers of a task as a score compares them, sorted, and the items that each is right for. */
class Answers {
  readonly texts: readonly string[];
  private readonly items = new Map<string, number[]>();

  constructor(entries: readonly Entry[]) {
    for (const entry of entries) {
      for (const answer of new Set(rightAnswers(entry).map((text) => normaliseAnswer(text)))) {
        const items = this.items.get(answer);
        if (items) items.push(entry.index);
        else this.items.set(answer, [entry.index]);
      }
    }
    this.texts = [...this.items.keys()].sort();
  }

  /** Places of the items that one of these is right for, rising. */
  having(some: readonly string[]): number[] {
    return [...new Set(some.flatMap((answer) => this.items.get(answer) as number[]))].sort((a, b) => a - b);
  }

  /** Whether there is an item that only one of the two is right for. */
  differ(one: string, other: string): boolean {
    return String(this.items.get(one)) !== String(this.items.get(other));
  }
}

function spelling(entry: Entry): Finding[] {
  const { index, input } = entry;
  const right = rightAnswers(entry);
  const findings: Finding[] = [];
  for (const [i, value] of [input, ...right].entries()) {
    if (value === value.trim()) continue;
    const field = i === 0 ? 'input' : 'output';
    const message = `item ${index}: ${field} ${quote(value)} has spaces around it, which prompts would show`;
    findings.push(finding('warning', 'blanks', [index], message));
  }
  for (const answer of right) {
    if (!answersCollide(input, answer, { ignoreCase: true })) continue;
    const when = answersCollide(input, answer) ? '' : ' if case is ignored';
    const message = `item ${index}: naming the input ${quote(input)} scores as the answer ${quote(answer)}${when}`;
    findings.push(finding('warning', 'answer-in-input', [index], message));
  }
  return findings;
}

/** Answers that begin others, each with these. In sorted text those directly follow it, so that one walk finds all. */
async function prefixes(sorted: readonly string[], pace: Pace): Promise<[string, string[]][]> {
  const found: [string, string[]][] = [];
  let open: [string, string[]][] = [];
  for (const answer of sorted) {
    if (pace.due()) await pace.rest();
    open = open.filter(([short]) => answer.startsWith(short));
    for (const [, longer] of open) longer.push(answer);
    const entry: [string, string[]] = [answer, []];
    open.push(entry);
    found.push(entry);
  }
  return found.filter(([, longer]) => longer.length > 0);
}

async function tokenFindings(answers: Answers, { of, end }: FirstTokens, pace: Pace): Promise<Finding[]> {
  const owned: { answer: string; id: number; text: string }[] = [];
  const without: string[] = [];
  for (const answer of answers.texts) {
    if (pace.due()) await pace.rest();
    const token = await of(answer);
    if (token) owned.push({ answer, ...token });
    else without.push(answer);
  }
  // By their ids: tokens that are parts of characters all look alike.
  const findings = [...groupBy(owned, ({ id }) => id)].flatMap(([id, group]) => {
    const [first, ...others] = group as [(typeof owned)[number], ...typeof owned];
    if (!others.some(({ answer }) => answers.differ(first.answer, answer))) return [];
    const sharing = group.map(({ answer }) => answer);
    const message = `${quoteSome(sharing)} begin with the same token ${quote(first.text)} (${id})`;
    const why = 'a score of the first token takes one for the other';
    return finding('warning', 'shared-first-token', answers.having(sharing), `${message}: ${why}`);
  });
  if (without.length === 0) return findings;
  const message = `the tokenizer merges the first letters of ${quoteSome(without)} with ${end}`;
  return [...findings, finding('warning', 'no-first-token', answers.having(without), message)];
}
