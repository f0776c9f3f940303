import { answersCollide, normaliseAnswer } from './answers.js';
import { type Finding, type FirstToken, finding, quote, quoteSome, repeated } from './findings.js';

interface Entry {
  readonly index: number;
  readonly input: string;
  readonly output: string;
}

/** What is wrong with answers: how they are written, and which of them a score cannot tell apart. */
export async function answerFindings(
  entries: readonly Entry[],
  firstToken: FirstToken | undefined,
): Promise<Finding[]> {
  const answers = [...new Set(entries.map(({ output }) => normaliseAnswer(output)))].sort();
  const having = (some: readonly string[]) =>
    entries.filter(({ output }) => some.includes(normaliseAnswer(output))).map(({ index }) => index);
  const only = entries.length > 1 && answers.length === 1 ? (answers as [string]) : [];
  return [
    ...only.map((answer) =>
      finding('error', 'one-answer', [], `all items have the answer ${quote(answer)}: it says nothing about them`),
    ),
    ...entries.flatMap(spelling),
    ...prefixes(answers).map(([short, ...longer]) =>
      finding(
        'warning',
        'answer-prefix',
        having([short as string, ...longer]),
        `the answer ${quote(short as string)} begins ${quoteSome(longer)}: the lenient score takes one for the other`,
      ),
    ),
    ...(firstToken ? await tokenFindings(answers, firstToken, having) : []),
  ];
}

function spelling({ index, input, output }: Entry): Finding[] {
  const findings: Finding[] = [];
  for (const [field, value] of Object.entries({ input, output })) {
    if (value !== value.trim()) {
      const message = `item ${index}: ${field} ${quote(value)} has spaces around it, which prompts would show`;
      findings.push(finding('warning', 'blanks', [index], message));
    }
  }
  if (answersCollide(input, output, { ignoreCase: true })) {
    const when = answersCollide(input, output) ? '' : ' if case is ignored';
    const message = `item ${index}: naming the input ${quote(input)} scores as the answer ${quote(output)}${when}`;
    findings.push(finding('warning', 'answer-in-input', [index], message));
  }
  return findings;
}

/** Answers that begin others, each with these; in sorted text those directly follow it. */
function prefixes(sorted: readonly string[]): string[][] {
  return sorted.flatMap((short, i) => {
    const end = sorted.findIndex((other, j) => j > i && !other.startsWith(short));
    const longer = sorted.slice(i + 1, end < 0 ? sorted.length : end);
    return longer.length > 0 ? [[short, ...longer]] : [];
  });
}

async function tokenFindings(
  answers: readonly string[],
  firstToken: FirstToken,
  having: (some: readonly string[]) => number[],
): Promise<Finding[]> {
  const tokens: { answer: string; token: string | undefined }[] = [];
  for (const answer of answers) tokens.push({ answer, token: await firstToken(answer) });
  const without = tokens.filter(({ token }) => token === undefined).map(({ answer }) => answer);
  const owned = tokens.flatMap(({ answer, token }) => (token === undefined ? [] : [{ answer, token }]));
  const findings = repeated(owned, ({ token }) => token).map((group) => {
    const sharing = group.map(({ answer }) => answer);
    const message = `${quoteSome(sharing)} begin with the same token ${quote(group[0]?.token as string)}`;
    const why = 'a score of the first token takes one for the other';
    return finding('warning', 'shared-first-token', having(sharing), `${message}: ${why}`);
  });
  if (without.length === 0) return findings;
  const message = `the tokenizer merges the first letters of ${quoteSome(without)} with "A:"`;
  return [...findings, finding('warning', 'no-first-token', having(without), message)];
}
