import { type ChatMessage, ChatTemplate } from '../chat/chat-template.js';
import type { Model } from '../model/model.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { type AnswerFormat, answersBehind } from './answer-tokens.js';
import { PAPER_FORMAT, type PromptContent, type PromptFormat, plainFormat } from './prompt-format.js';
import type { TaskItem } from './task.js';
import { DELIMITER, type Modality, PartList, type PromptTemplate } from './template.js';

/**
 * How a template is written with a model. Whatever makes prompts of tasks asks here.
 *
 * @param template Defaults to the paper's
 * @throws {XpatchError} CONFIG_INVALID for a template that lacks its fields, or `chat` with a model that has no chat template
 */
export async function promptFormat(model: Model, template: PromptTemplate = 'paper'): Promise<PromptFormat> {
  if (template === 'chat') return chatFormat(model);
  return template === 'paper' ? PAPER_FORMAT : plainFormat(template);
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
    const wayOut = 'Use --template paper, or write a template out: --template "Q: {input}\\nA: {output}\\n".';
    throw new XpatchError('CONFIG_INVALID', `template: chat: ${why} ${wayOut}`, { cause });
  }
}
