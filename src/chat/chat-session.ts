import type { Intervention } from '../hooks/types.js';
import type { Context } from '../model/context.js';
import type { GenerateOptions, Generation } from '../model/generate.js';
import type { OnProgress } from '../model/types.js';
import type { Prompt } from '../prompt/prompt.js';
import { counted } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { type ChatMessage, ChatTemplate, picturesOf } from './chat-template.js';

/** How a chat is begun and its answers are sampled. */
export interface ChatOptions extends Pick<GenerateOptions, 'temperature' | 'sampleFrom' | 'topP' | 'stop'> {
  /** Chat template in Jinja. Defaults to the model's own. */
  template?: string;
  /** System message. Defaults to none, or what the template writes by itself. */
  system?: string;
  /** Longest answer; also bounded by the room in the context. Defaults to 1024. */
  maxTokens?: number;
  /** Seed of sampling; each turn adds one. Defaults to 1. */
  seed?: number;
}

/** What is wanted of one answer of a chat. */
export interface SendOptions {
  /** An abort ends the answer; what was said so far stays in the conversation. */
  signal?: AbortSignal;
  /** Called for every new piece of the answer. */
  onText?: (text: string) => void;
  onProgress?: OnProgress;
}

/** An answer, and what it took. */
export interface ChatTurn extends Pick<Generation, 'text' | 'tokens' | 'finish' | 'interventions'> {
  /** Positions of the whole conversation in front of the answer. */
  positions: number;
  /** How many of them were in the cache already. */
  reused: number;
  /** Positions that are left in the context. */
  room: number;
}

/** What the last turn was, for the next one to continue from. */
interface LastTurn {
  /** What the template wrote. */
  written: string;
  pictures: number;
  prompt: Prompt;
  answer: string;
  tokens: number[];
  /** Whether the tokens are the answer's and nothing more. */
  exact: boolean;
  edits: Intervention[];
}

/**
 * A conversation with a model in its own chat template. The KV cache of the context is kept between turns, so that a turn
 * computes only what is new; other calls on the context empty it, which costs time but changes nothing.
 *
 * @example
 * ```ts
 * const chat = new ChatSession(context, { system: 'Answer in one word.', maxTokens: 32 });
 * const { text } = await chat.send('What is the capital of Peru?');
 * ```
 */
export class ChatSession {
  /** System message. A change counts from the start of the conversation. */
  system: string | undefined;
  /**
   * Edits the hidden state of the last position before each following answer; with `steps`, those of the answer's tokens too. Turns that are over stay as they were computed,
   * as long as nothing before them changes. Defaults to none.
   */
  patch: Omit<Intervention, 'positions'> | undefined;

  private readonly template: ChatTemplate;
  private readonly started = new Date();
  private history: ChatMessage[] = [];
  private last: LastTurn | undefined;
  private busy = false;

  /** @throws XpatchError CHAT_TEMPLATE_MISSING, TOKEN_INVALID for a model without a tokenizer. */
  constructor(
    readonly context: Context,
    private readonly options: ChatOptions = {},
  ) {
    this.template = ChatTemplate.of(context.model, options.template);
    this.system = options.system;
  }

  /** Questions and answers so far. Answers are without space around them, as templates expect them. */
  get messages(): readonly ChatMessage[] {
    return this.history;
  }

  /** Forgets questions and answers; the system message and the patch stay. */
  clear(): void {
    this.history = [];
    this.last = undefined;
  }

  /**
   * Asks, and waits for the answer. When it throws the conversation is as before.
   *
   * @param content A text, or texts and pictures in their order.
   * @throws XpatchError CHAT_TEMPLATE_INVALID, CONTEXT_OVERFLOW when the conversation does not fit any more, ABORTED before the
   *   answer began, BUSY, and what prompts and passes throw.
   */
  async send(content: ChatMessage['content'], { signal, onText, onProgress }: SendOptions = {}): Promise<ChatTurn> {
    if (this.busy)
      throw new XpatchError('BUSY', 'The conversation is waiting for an answer. Await it before the next message.');
    this.busy = true;
    try {
      const question: ChatMessage = { role: 'user', content };
      const system: ChatMessage[] = this.system === undefined ? [] : [{ role: 'system', content: this.system }];
      const messages = [...system, ...this.history, question];
      const written = this.template.write(messages, this.started);
      const { prompt, edits } = await this.continue(written, messages, signal);
      if (this.patch) edits.push({ ...this.patch, positions: prompt.length - 1 });

      const { maxTokens = 1024, seed = 1, temperature, sampleFrom, topP, stop } = this.options;
      const { maxPositions = Number.POSITIVE_INFINITY } = this.context.model.info;
      const room = Math.min(this.context.options.nCtx, maxPositions) - prompt.length;
      if (room < 1) throw this.overflow(prompt);
      const [generation] = await this.context.generate([{ prompt, interventions: edits }], {
        maxTokens: Math.min(maxTokens, room),
        seed: seed + this.history.length / 2,
        temperature,
        sampleFrom,
        topP,
        stop,
        keep: true,
        signal,
        onText: onText && ((_, text) => onText(text)),
        onProgress,
      });
      const { text, tokens, finish, interventions, reused = 0 } = generation;
      const answer = text.trim();
      this.history = [...this.history, question, { role: 'assistant', content: answer }];
      const pictures = picturesOf(messages).length;
      if (this.patch) {
        // In later turns the answer is a part of the prompt: what was edited in it stays so, and nothing after it is.
        const edited = new Set(interventions.map(({ position }) => position));
        const positions = [...edited].filter((position) => position >= prompt.length - 1);
        edits[edits.length - 1] = { ...this.patch, steps: 'prompt', positions };
      }
      this.last = { written, pictures, prompt, answer, tokens, exact: finish !== 'stop', edits };
      return {
        text,
        tokens,
        finish,
        interventions: this.patch ? interventions.slice(-1) : [],
        positions: prompt.length,
        reused,
        room: room - tokens.length,
      };
    } finally {
      this.busy = false;
    }
  }

  /**
   * The prompt of the next turn. Where the template only appends to the last answer, that answer stays the tokens that
   * the model chose, which tokenising its text might not give; otherwise all of it is tokenised again.
   */
  private async continue(
    written: string,
    messages: readonly ChatMessage[],
    signal?: AbortSignal,
  ): Promise<{ prompt: Prompt; edits: Intervention[] }> {
    const { last, template } = this;
    const { model } = this.context;
    if (last?.exact && written.startsWith(last.written)) {
      const said = template.literal(last.answer);
      const rest = written.slice(last.written.length).trimStart();
      const next = rest.slice(said.length);
      if (rest.startsWith(said) && template.startsWithControl(next)) {
        const added = await model.prompt(template.parts(next, picturesOf(messages).slice(last.pictures)), { signal });
        const prompt = last.prompt.append(last.tokens).append(added);
        return { prompt, edits: [...last.edits] };
      }
    }
    const prompt = await model.prompt(template.parts(written, picturesOf(messages)), { signal });
    // A patch belongs to its place: where the text up to there has changed, it does not belong to this conversation any more.
    const common = last ? commonLength(last.prompt, prompt) : 0;
    const kept = (last?.edits ?? []).map((edit) => ({
      ...edit,
      positions: (edit.positions as number[]).filter((position) => position < common),
    }));
    return { prompt, edits: kept.filter(({ positions }) => positions.length > 0) };
  }

  private overflow(prompt: Prompt): XpatchError {
    const { nCtx } = this.context.options;
    return new XpatchError(
      'CONTEXT_OVERFLOW',
      `With this message the conversation has ${counted(prompt.length, 'position')}, but the context holds ${nCtx}, answer included. ` +
        `${this.history.length ? 'Start over (/clear)' : 'Shorten it'}, or use a larger context (--n-ctx).`,
    );
  }
}

/** Positions from the start at which two prompts are alike. */
function commonLength(a: Prompt, b: Prompt): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a.tokens[i] !== b.tokens[i]) return i;
  return length;
}
