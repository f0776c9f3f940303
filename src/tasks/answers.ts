export interface AnswerOptions {
  /** Compare without regard to case, as the paper does in its instruction experiment. Defaults to false. */
  readonly ignoreCase?: boolean;
}

/** An answer as it is compared: stripped, in Unicode's composed form. */
export function normaliseAnswer(text: string, { ignoreCase = false }: AnswerOptions = {}): string {
  const stripped = text.trim().normalize('NFC');
  return ignoreCase ? stripped.toLowerCase() : stripped;
}

/** All answers that count as right. */
export function rightAnswers({
  output,
  also = [],
}: {
  readonly output: string;
  readonly also?: readonly string[];
}): string[] {
  return [output, ...also];
}

/** What the answer to an item is ranked among: its choices, or all answers of its task, each once. */
export function choicesOf(
  { choices }: { readonly choices?: readonly string[] },
  items: readonly Parameters<typeof rightAnswers>[0][],
): readonly string[] {
  return choices ?? [...new Set(items.flatMap(rightAnswers))];
}

/** Whether one of the two answers is a prefix of the other, so that the paper's lenient rule takes one for the other. */
export function answersCollide(first: string, second: string, options: AnswerOptions = {}): boolean {
  const a = normaliseAnswer(first, options);
  const b = normaliseAnswer(second, options);
  return a !== '' && b !== '' && (a.startsWith(b) || b.startsWith(a));
}
