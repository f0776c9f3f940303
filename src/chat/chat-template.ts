import { ggufNumber, readGgufHeader } from '../gguf/gguf.js';
import type { Model } from '../model/model.js';
import { native } from '../native/index.js';
import type { ImageSource, PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { type Rendering, renderJinja } from './jinja.js';

/** One message of a chat. An answer (`assistant`) and a `system` message are texts. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  /** A text, or texts and pictures in their order. */
  content: string | readonly (string | { image: ImageSource })[];
}

/** What a chat template knows of a vocabulary. */
export interface ChatVocabulary {
  /** `bos_token`, `eos_token` and the like, as the template's variables; empty texts for missing ones. */
  names: Readonly<Record<string, string>>;
  /** Texts of the tokens that mean something other than their text. */
  control: readonly string[];
}

// Noncharacters of Unicode, which no text holds: they stand for a picture, come before what a message spells like a
// control token, and mark the ends of a probe.
const PICTURE = '\uFDD0';
const LITERAL = '\uFDD1';
const PROBE = ['\uFDD2', '\uFDD3', '\uFDD4'] as const;

/**
 * The chat template of a model, in Jinja: writes messages as the model was trained to read them.
 *
 * What messages spell like a control token stays text, so that nobody ends a turn by writing so. Nothing is added in front:
 * the template alone decides whether a prompt begins with BOS, as in transformers' `apply_chat_template`.
 *
 * @example
 * ```ts
 * const template = ChatTemplate.of(model);
 * const prompt = await model.prompt(template.render([{ role: 'user', content: 'Hello' }]));
 * ```
 */
export class ChatTemplate {
  /** Whether messages may be plain texts, and what stands for a picture in a message of parts; found out when needed. */
  private abilities: { texts: boolean; picture: string } | undefined;
  /** Why it will not be tried again. */
  private endless: Rendering | undefined;
  /** Texts that messages must not spell. */
  private readonly reserved: Set<string>;

  readonly source: string;

  /** @param source in Jinja; its line ends become \n, as jinja2 has them */
  constructor(
    source: string,
    private readonly vocabulary: ChatVocabulary,
  ) {
    this.source = source.replace(/\r\n?/g, '\n');
    this.reserved = new Set(vocabulary.control.filter((text) => text !== ''));
  }

  /**
   * @param source A template in Jinja. Defaults to the model's own.
   * @throws XpatchError CHAT_TEMPLATE_MISSING, TOKEN_INVALID without a tokenizer.
   */
  static of(model: Model, source?: string): ChatTemplate {
    if (!model.info.hasTokenizer) {
      throw new XpatchError('TOKEN_INVALID', 'This model has no tokenizer, so it cannot chat: give it token ids.');
    }
    const header = readGgufHeader(model.files.model);
    const own = header.metadata.get('tokenizer.chat_template');
    if (source === undefined && typeof own !== 'string') {
      throw new XpatchError(
        'CHAT_TEMPLATE_MISSING',
        `'${model.identity.name || model.files.model}' has no chat template (tokenizer.chat_template of its GGUF). ` +
          'Give one (--chat-template, a file in Jinja), or use a plain prompt (--prompt without --chat).',
      );
    }
    const text = (token: number) => (token < 0 ? '' : model.detokenize([token]));
    const names = { bos_token: text(model.info.bosToken), eos_token: '', unk_token: '', pad_token: '' };
    for (const [name, key] of [
      ['eos_token', 'eos'],
      ['unk_token', 'unknown'],
      ['pad_token', 'padding'],
    ] as const) {
      const token = ggufNumber(header, `tokenizer.ggml.${key}_token_id`) ?? -1;
      names[name] = text(token < model.info.nVocab ? token : -1);
    }
    const control = Array.from(native().addon.modelControlTokens(model.native), text);
    return new ChatTemplate(source ?? (own as string), { names, control });
  }

  /**
   * Messages as parts of a prompt that the answer follows.
   *
   * @param options.now The date that some templates write. Defaults to now.
   * @throws XpatchError CHAT_TEMPLATE_INVALID.
   */
  render(messages: readonly ChatMessage[], options: { now?: Date } = {}): PromptPart[] {
    return this.parts(this.write(messages, options.now), picturesOf(messages));
  }

  /** Messages as a text with placeholders, for `parts`. @internal */
  write(messages: readonly ChatMessage[], now = new Date()): string {
    const { texts, picture } = this.probe();
    const written = messages.map(({ role, content }) => {
      const parts = merge(typeof content === 'string' ? [content] : content);
      const hasPicture = parts.some((part) => typeof part !== 'string');
      if (texts && !(hasPicture && picture)) {
        const text = parts.map((part) => (typeof part === 'string' ? this.literal(part) : PICTURE)).join('');
        return { role, content: onLines(text) };
      }
      const typed = parts.map((part) => {
        if (typeof part === 'string') return { type: 'text', text: this.literal(part) };
        return picture ? { type: 'image' } : { type: 'text', text: PICTURE };
      });
      return { role, content: typed };
    });
    const raw = this.run(written, now);
    const text = picture ? outsideLiterals(raw, [picture], () => PICTURE) : raw;
    const wanted = picturesOf(messages).length;
    const shown = text.split(PICTURE).length - 1;
    if (shown !== wanted) throw invalid(`drops or repeats pictures: it shows ${shown} of ${wanted}`);
    return text;
  }

  /** A text of `write`, or the end of one, as parts of a prompt with its pictures. @internal */
  parts(text: string, pictures: readonly { image: ImageSource }[]): PromptPart[] {
    const parts: PromptPart[] = [{ tokens: [] }]; // so that nothing is added in front
    for (const [i, piece] of text.split(PICTURE).entries()) {
      if (i > 0) parts.push(pictures[i - 1] as PromptPart);
      for (const part of this.pieces(piece)) parts.push(part);
    }
    return parts;
  }

  /** What an answer becomes inside a text of `write`. @internal */
  literal(text: string): string {
    const clean = text.replace(/[\uFDD0-\uFDD4]/g, '\uFFFD');
    const starts = new Set<number>();
    for (const reserved of this.reserved) {
      for (let at = clean.indexOf(reserved); at >= 0; at = clean.indexOf(reserved, at + 1)) starts.add(at);
    }
    if (starts.size === 0) return clean;
    return Array.from({ length: clean.length }, (_, i) => (starts.has(i) ? LITERAL : '') + clean[i]).join('');
  }

  /** Whether a text of `write` begins with a control token, which no text before it can melt into. @internal */
  startsWithControl(text: string): boolean {
    return this.vocabulary.control.some((control) => control !== '' && text.startsWith(control));
  }

  /** Between control tokens of the template a text is either free of what looks like one, or tokenised as a literal. */
  private pieces(text: string): PromptPart[] {
    if (!text.includes(LITERAL)) return text === '' ? [] : [text];
    const parts: PromptPart[] = [];
    const add = (piece: string) => {
      if (piece.includes(LITERAL)) parts.push({ literal: piece.replaceAll(LITERAL, '') });
      else if (typeof parts.at(-1) === 'string') parts.push(`${parts.pop()}${piece}`);
      else if (piece !== '') parts.push(piece);
    };
    let from = 0;
    outsideLiterals(text, this.vocabulary.control, (match, at) => {
      add(text.slice(from, at));
      add(match);
      from = at + match.length;
      return match;
    });
    add(text.slice(from));
    return parts;
  }

  private run(messages: unknown[], now: Date): string {
    const result = this.attempt(messages, now);
    if ('text' in result) return result.text;
    // A message of the template itself, which may hold anything.
    throw invalid(`cannot write these messages: ${result.error.replace(/[\p{Cc}\p{Cf}]+/gu, ' ')}`);
  }

  private attempt(messages: unknown[], now = new Date()): Rendering {
    if (this.endless) return this.endless;
    const variables = { messages, add_generation_prompt: true, tools: null, documents: null, ...this.vocabulary.names };
    const result = renderJinja(this.source, variables, now);
    if ('endless' in result) this.endless = result;
    return result;
  }

  /** Templates take texts, or lists of parts, or both; what they write for a picture is between two probes. */
  private probe() {
    if (this.abilities) return this.abilities;
    const [before, after, unread] = PROBE;
    const said = (content: unknown) => {
      const result = this.attempt([{ role: 'user', content }]);
      return 'text' in result ? result.text : '';
    };
    // A template that knows texts only may print the list itself, with what nobody reads.
    const listed = said([{ type: 'text', text: before, unread }, { type: 'image' }, { type: 'text', text: after }]);
    const typed = listed.includes(unread) ? '' : listed;
    const [from, to] = [typed.indexOf(before), typed.indexOf(after)];
    const parts = from >= 0 && to > from;
    const texts = said(before).includes(before);
    if (!texts && !parts) {
      this.run([{ role: 'user', content: before }], new Date()); // says what it objects to, if anything
      throw invalid('does not write what the user says');
    }
    const picture = parts ? typed.slice(from + 1, to).trim() : '';
    if (picture) this.reserved.add(picture);
    this.abilities = { texts, picture };
    return this.abilities;
  }
}

/** The pictures of messages, in their order. @internal */
export function picturesOf(messages: readonly ChatMessage[]): { image: ImageSource }[] {
  return messages.flatMap(({ content }) =>
    typeof content === 'string' ? [] : content.filter((part) => typeof part !== 'string'),
  );
}

/** A text with pictures, for a template that does not know them: each on a line of its own unless space parts it already. */
function onLines(text: string): string {
  return text.replace(new RegExp(`(?<=${PICTURE})(?=\\S)|(?<=\\S)(?=${PICTURE})`, 'g'), '\n');
}

/** Texts that follow each other become one: a token must not hide on the seam. */
function merge(parts: readonly (string | { image: ImageSource })[]): (string | { image: ImageSource })[] {
  const merged: (string | { image: ImageSource })[] = [];
  for (const part of parts) {
    if (typeof part === 'string' && typeof merged.at(-1) === 'string') merged.push(`${merged.pop()}${part}`);
    else merged.push(part);
  }
  return merged;
}

/** Calls `replace` for what equals one of the texts, the longest first, unless it is in a message. */
function outsideLiterals(
  text: string,
  wanted: readonly string[],
  replace: (match: string, at: number) => string,
): string {
  const sorted = wanted.filter((item) => item !== '').sort((a, b) => b.length - a.length);
  if (sorted.length === 0) return text;
  const escaped = sorted.map((item) => item.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return text.replace(new RegExp(`(?<!${LITERAL})(?:${escaped.join('|')})`, 'g'), replace);
}

function invalid(why: string): XpatchError {
  return new XpatchError(
    'CHAT_TEMPLATE_INVALID',
    `The chat template ${why}. Change the messages, or give another template (--chat-template).`,
  );
}
