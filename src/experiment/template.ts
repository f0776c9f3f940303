import { type ChatMessage, ChatTemplate } from '../chat/chat-template.js';
import type { Model } from '../model/model.js';
import type { PromptPart } from '../prompt/types.js';
import { type AnswerFormat, answersBehind, plainAnswers } from '../tasks/answer-tokens.js';
import type { Modality } from '../tasks/prompts.js';
import type { TaskItem } from '../tasks/task.js';
import { checkTemplate, DELIMITER, PAPER_TEMPLATE, PartList, type Template } from '../tasks/template.js';
import { XpatchError } from '../util/errors.js';
import type { Experiment } from './types.js';

/** The content of a prompt, in this order; an instruction without a query is alone. */
export interface PromptContent {
  /** Raw text at the very start, or the system message of a chat. */
  readonly before?: string;
  readonly instruction?: string;
  /** Whole examples. */
  readonly shots?: readonly TaskItem[];
  readonly shotModality?: Modality;
  readonly query?: TaskItem;
  readonly queryModality?: Modality;
  /** Asked with the query, after its input. */
  readonly question?: string;
}

/** Writes prompts in one template. Each ends with the mark `DELIMITER`, and `answer` follows it. */
export interface PromptFormat extends AnswerFormat {
  /** Texts that end an answer. */
  readonly stop: readonly string[];
  write(content: PromptContent): PromptPart[];
}

/**
 * @throws {XpatchError} CONFIG_INVALID for a template that lacks its fields, or `chat` with a model that has no chat template
 */
export async function promptFormat(model: Model, template: Experiment['template']): Promise<PromptFormat> {
  if (template === 'chat') return chatFormat(model);
  return plainFormat(template === 'paper' ? PAPER_TEMPLATE : template);
}

/** An instruction before a query is followed by an empty line, as examples are in the paper's template. */
export function plainFormat(template: Template): PromptFormat {
  checkTemplate(template);
  return {
    stop: [template.stop].flat(),
    ...plainAnswers(template),
    write({ before, instruction, shots = [], shotModality = 'text', query, queryModality = 'text', question }) {
      const parts = new PartList();
      if (before !== undefined) parts.text(before);
      if (instruction !== undefined) parts.literal(query ? `${instruction}\n\n` : instruction);
      for (const shot of shots) parts.fill(template.example, shot, shotModality);
      if (query) parts.fill(template.query, query, queryModality, question);
      return parts.marked();
    },
  };
}

/** The date that some templates print: always the same, so that a run can be repeated. */
const DAY = new Date(2024, 0, 1);

/** The template in the GGUF. Examples are turns of user and assistant, `before` is the system message. */
function chatFormat(model: Model): PromptFormat {
  const template = refusing(() => ChatTemplate.of(model));
  return { stop: ['\n'], ...chatAnswers(template), write: (content) => refusing(() => writeChat(content, template)) };
}

/** An answer that no template has in its own text. */
const ANSWER = 'XyZAnswerZyX';

/** How answers are written in a chat: like one that another turn follows, as in examples. */
export function chatAnswers(template: Pick<ChatTemplate, 'render'>): AnswerFormat {
  const item: TaskItem = { input: 'x', output: ANSWER };
  const textOf = (content: PromptContent) =>
    writeChat(content, template)
      .map((part) => (typeof part === 'string' ? part : 'literal' in part ? part.literal : ''))
      .join('');
  try {
    const query = textOf({ query: item });
    const example = textOf({ shots: [item], query: item }).split(ANSWER, 1)[0] as string;
    return answersBehind(query, example, example);
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
    return answersBehind('', '', ''); // a template without earlier turns has no examples
  }
}

/** The parts of a chat; the mark is the last token of what opens the assistant's turn. */
export function writeChat(content: PromptContent, template: Pick<ChatTemplate, 'render'>): PromptPart[] {
  const { before, instruction, shots = [], shotModality = 'text', query, queryModality = 'text', question } = content;
  const inputOf = (item: TaskItem, modality: Modality, asked?: string) => {
    const list = new PartList();
    list.fill('{input}', item, modality, asked);
    // The chat template already takes message texts as literal.
    return list.marked().flatMap((part) => {
      if (typeof part === 'string' || 'image' in part) return [part];
      return 'literal' in part ? [part.literal] : [];
    });
  };
  const messages: ChatMessage[] = before === undefined ? [] : [{ role: 'system', content: before }];
  for (const shot of shots) {
    messages.push({ role: 'user', content: inputOf(shot, shotModality) });
    messages.push({ role: 'assistant', content: shot.output });
  }
  const asked = query ? inputOf(query, queryModality, question) : [];
  const lead = instruction === undefined ? [] : [query ? `${instruction}\n` : instruction];
  messages.push({ role: 'user', content: [...lead, ...asked] });
  return [...template.render(messages, { now: DAY }), { mark: DELIMITER }];
}

function refusing<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    const { code, message } = cause as XpatchError;
    if (!code?.startsWith('CHAT_TEMPLATE_')) throw cause;
    const why = code === 'CHAT_TEMPLATE_MISSING' ? 'The model has no chat template.' : message;
    throw new XpatchError('CONFIG_INVALID', `template: chat: ${why} Use paper, or write a template out.`, { cause });
  }
}
