import { XpatchError } from '../util/errors.js';
import { Prompt, type Segment } from './prompt.js';
import { isText, textOf } from './text-parts.js';
import type { ImageSource, PromptPart, TextPart } from './types.js';

/** What building a prompt needs of a model. */
export interface PromptTools {
  /** Tokens, without BOS, of the one text that the parts make; control tokens are recognised but in literals. */
  tokenize(parts: readonly TextPart[]): Int32Array;
  /** Text of a token, for messages. */
  describe(token: number): string;
  /** Bytes of its text; none of a control token. */
  bytesOf(token: number): Uint8Array;
  /** The BOS token, if the model's tokenizer puts one in front. */
  bos: number | undefined;
  nVocab: number;
  encodeImage(image: ImageSource): Promise<Segment[]>;
}

/**
 * Tokenises parts into a prompt and finds the token position of every mark.
 *
 * Adjacent texts and literals are tokenised as one text, so that marks do not change the tokens. A mark is the token that ends at its
 * place; where a token reaches across it the prompt is refused, because a neighbouring token would be patched silently.
 * Text on either side of a picture is tokenised on its own, as llama.cpp's mtmd does. BOS is added unless the prompt
 * starts with token ids.
 *
 * @param source what the prompt says it was made of, where the encoder put something around it. Defaults to `parts`
 * @throws XpatchError PROMPT_EMPTY, MARK_AMBIGUOUS, TOKEN_INVALID, INVALID_ARGUMENT, or what the image encoder throws.
 */
export async function buildPrompt(parts: readonly PromptPart[], tools: PromptTools, source = parts): Promise<Prompt> {
  const segments: Segment[] = [];
  const marks = new Map<string, number>();
  let length = 0;
  let pictures = 0;
  let text: TextPart[] = [];
  let pending: { mark: string; before: TextPart[] }[] = [];

  const append = (segment: Segment) => {
    if (segment.kind === 'tokens' && segment.tokens.length === 0) return;
    const last = segments.at(-1);
    if (segment.kind === 'tokens' && last?.kind === 'tokens') {
      segments[segments.length - 1] = { kind: 'tokens', tokens: joined(last.tokens, segment.tokens) };
    } else {
      segments.push(segment);
    }
    length += segment.kind === 'tokens' ? segment.tokens.length : segment.nRows;
  };
  const place = (mark: string, position: number) => {
    if (mark === 'last' || mark === 'all' || marks.has(mark)) {
      throw new XpatchError(
        'MARK_AMBIGUOUS',
        `The mark '${mark}' ${marks.has(mark) ? 'occurs twice in the prompt' : 'is a reserved name'}.`,
      );
    }
    if (position < 0) {
      throw new XpatchError(
        'MARK_AMBIGUOUS',
        `The mark '${mark}' comes before the first token. Put it after some text.`,
      );
    }
    marks.set(mark, position);
  };
  const flush = () => {
    const tokens = text.length ? tools.tokenize(text) : new Int32Array(0);
    for (const { mark, before: start } of pending) {
      const before = start.length ? tools.tokenize(start) : new Int32Array(0);
      const differs = before.findIndex((token, i) => token !== tokens[i]);
      if (differs >= 0) {
        const token = tokens[Math.min(differs, tokens.length - 1)] as number;
        throw new XpatchError(
          'MARK_AMBIGUOUS',
          `The tokenizer merges across the mark '${mark}': no token ends with the text before it ` +
            `(token ${JSON.stringify(tools.describe(token))}). Change the text around the mark.`,
        );
      }
      place(mark, length + before.length - 1);
    }
    if (tokens.length) append({ kind: 'tokens', tokens });
    text = [];
    pending = [];
  };

  const isEmpty = (part: PromptPart) => (isText(part) ? textOf(part) === '' : 'mark' in part);
  const start = parts.find((part) => !isEmpty(part));
  if (start === undefined) {
    throw new XpatchError('PROMPT_EMPTY', 'The prompt is empty. Give it some text, token ids or a picture.');
  }
  if (tools.bos !== undefined && !(typeof start === 'object' && 'tokens' in start)) {
    append({ kind: 'tokens', tokens: Int32Array.of(tools.bos) });
  }
  for (const part of parts) {
    if (isText(part)) {
      if (!isEmpty(part)) text.push(part);
    } else if ('mark' in part) {
      pending.push({ mark: part.mark, before: [...text] });
    } else if ('tokens' in part) {
      flush();
      append({ kind: 'tokens', tokens: checkTokens(part.tokens, tools.nVocab) });
    } else if ('image' in part) {
      flush();
      pictures++;
      for (const segment of await tools.encodeImage(part.image)) {
        append(segment.kind === 'image' ? { ...segment, number: pictures } : segment);
      }
    } else {
      throw new XpatchError(
        'INVALID_ARGUMENT',
        'A prompt part must be a string, { literal }, { tokens }, { image } or { mark }.',
      );
    }
  }
  flush();
  return new Prompt(segments, Object.fromEntries(marks), source, tools.bytesOf);
}

function joined(a: Int32Array, b: Int32Array): Int32Array {
  const both = new Int32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

function checkTokens(tokens: ArrayLike<number>, nVocab: number): Int32Array {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i] as number;
    if (!Number.isInteger(token) || token < 0 || token >= nVocab) {
      throw new XpatchError(
        'TOKEN_INVALID',
        `Token id ${token} at index ${i} is outside the vocabulary (0 to ${nVocab - 1}).`,
      );
    }
  }
  return Int32Array.from(tokens);
}
