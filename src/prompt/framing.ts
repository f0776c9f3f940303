import type { PromptPart } from './types.js';

/** How a model wants pictures to be framed in a prompt. */
export interface Framing {
  /** Token ids before and after every picture. Where both are the same one, pictures next to each other share it. */
  readonly begin: number;
  readonly end: number;
  /**
   * Mantis' rules (its MFuyuProcessor, github.com/TIGER-AI-Lab/Mantis, mantis/models/mfuyu/processor.py): the text before
   * picture j, counted from 0, ends in `image {j}: `, and every text next to a picture begins with a BOS of its own.
   */
  readonly format?: 'mantis';
}

/**
 * The parts with what belongs around their pictures, BOS included; unchanged when there are none.
 *
 * @param tokenizer The model's BOS token, and whether its tokenizer puts that in front.
 */
export function frameParts(
  parts: readonly PromptPart[],
  { begin, end, format }: Framing,
  { bosToken, addsBos }: { bosToken: number; addsBos: boolean },
): readonly PromptPart[] {
  if (!parts.some(isImage)) return parts;
  const bos: PromptPart = { tokens: [bosToken] };
  const start = parts.find((part) => part !== '' && !isMark(part));
  const result: PromptPart[] = format === undefined && addsBos && start && !isTokens(start) ? [bos] : [];
  let text: PromptPart[] = [];
  let pictures = 0;
  const closeText = () => {
    const first = text.findIndex((part) => part !== '' && !isMark(part));
    if (format === 'mantis' && first >= 0 && !isTokens(text[first] as PromptPart)) {
      // A mark right after a picture is the token that closes the picture, not the BOS after it.
      text.splice(pictures ? first : 0, 0, bos);
    }
    for (const part of text) result.push(part);
    text = [];
  };
  for (const part of parts) {
    if (!isImage(part)) {
      text.push(part);
      continue;
    }
    const shared = pictures > 0 && begin === end && text.every((between) => between === '' || isMark(between));
    if (format === 'mantis') text.push(`image ${pictures}: `);
    closeText();
    if (!shared) result.push({ tokens: [begin] });
    result.push(part, { tokens: [end] });
    pictures++;
  }
  closeText();
  return result;
}

const isImage = (part: PromptPart): part is { image: never } => typeof part === 'object' && 'image' in part;
const isMark = (part: PromptPart): part is { mark: string } => typeof part === 'object' && 'mark' in part;
const isTokens = (part: PromptPart): boolean => typeof part === 'object' && 'tokens' in part;
