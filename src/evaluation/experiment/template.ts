import { XpatchError } from '../../errors.js';
import { readGgufHeader } from '../../model/gguf.js';
import type { Model, PromptPart } from '../../model/index.js';
import type { Modality } from '../../tasks/prompts.js';
import type { TaskItem } from '../../tasks/task.js';
import { checkTemplate, DELIMITER, PAPER_TEMPLATE, PartList, type Template } from '../../tasks/template.js';
import type { Experiment } from './types.js';

/** What stands in a prompt, in this order; an instruction without a query stands alone. */
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

/** Writes prompts in one template. Each ends with the mark `DELIMITER`, and the answer follows it. */
export interface PromptFormat {
  /** Text that ends an answer. */
  readonly stop: string;
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
    stop: template.stop,
    write({ before, instruction, shots = [], shotModality = 'text', query, queryModality = 'text', question }) {
      const parts = new PartList();
      if (before !== undefined) parts.text(before);
      if (instruction !== undefined) parts.text(query ? `${instruction}\n\n` : instruction);
      for (const shot of shots) parts.fill(template.example, shot, shotModality);
      if (query) parts.fill(template.query, query, queryModality, question);
      return parts.marked();
    },
  };
}

interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

/**
 * The template that the GGUF carries. Examples are turns of user and assistant, `before` is the system message, and the mark
 * is the last token of what opens the assistant's turn.
 */
async function chatFormat(model: Model): Promise<PromptFormat> {
  const source = readGgufHeader(model.files.model).metadata.get('tokenizer.chat_template');
  const refuse = (why: string, cause?: unknown) =>
    new XpatchError('CONFIG_INVALID', `template: chat: ${why}. Use paper, or write a template out.`, { cause });
  if (typeof source !== 'string') throw refuse('the model has no chat template (tokenizer.chat_template of its GGUF)');
  const { Template: Jinja } = await import('@huggingface/jinja');
  let jinja: InstanceType<typeof Jinja>;
  try {
    jinja = new Jinja(source);
  } catch (cause) {
    throw refuse(`the model's chat template cannot be read (${(cause as Error).message})`, cause);
  }
  const { addsBos, bosToken } = model.info;
  const bos = bosToken < 0 ? '' : model.detokenize([bosToken]);
  const render = (messages: Message[]): string => {
    let text: string;
    try {
      text = jinja.render({ messages, add_generation_prompt: true, bos_token: bos, eos_token: '' });
    } catch (cause) {
      throw refuse(`the model's chat template refuses the prompt (${(cause as Error).message})`, cause);
    }
    // The prompt builder puts the token in front by itself.
    return addsBos && bos !== '' && text.startsWith(bos) ? text.slice(bos.length) : text;
  };
  return { stop: '\n', write: (content) => writeChat(content, render) };
}

/** The parts of a chat. `render` writes messages as text. */
export function writeChat(content: PromptContent, render: (messages: Message[]) => string): PromptPart[] {
  const { before, instruction, shots = [], shotModality = 'text', query, queryModality = 'text', question } = content;
  const texts = [
    before,
    instruction,
    question,
    ...[...shots, ...(query ? [query] : [])].flatMap((i) => [i.input, i.output]),
  ];
  // Stands for pictures until the text is rendered: something that no text of the prompt has.
  let marker = '<picture>';
  while (texts.some((text) => text?.includes(marker))) marker = `<${marker}>`;
  const pictures: PromptPart[] = [];
  const inputOf = (item: TaskItem, modality: Modality, asked?: string) => {
    const list = new PartList();
    list.fill('{input}', item, modality, asked);
    return list
      .marked()
      .map((part) => {
        if (typeof part === 'string') return part;
        if (!('image' in part)) return '';
        pictures.push(part);
        return marker;
      })
      .join('');
  };
  const messages: Message[] = before === undefined ? [] : [{ role: 'system', content: before }];
  for (const shot of shots) {
    messages.push({ role: 'user', content: inputOf(shot, shotModality) });
    messages.push({ role: 'assistant', content: shot.output });
  }
  const asked = query ? inputOf(query, queryModality, question) : undefined;
  const lines = [instruction, asked].filter((line) => line !== undefined);
  messages.push({ role: 'user', content: lines.join('\n') });

  const pieces = render(messages).split(marker);
  if (pieces.length !== pictures.length + 1) {
    const problem = `it shows ${pieces.length - 1} of ${pictures.length} pictures`;
    throw new XpatchError(
      'CONFIG_INVALID',
      `template: chat: the model's chat template drops or repeats turns: ${problem}.`,
    );
  }
  const parts = pieces.flatMap((piece, i): PromptPart[] => [
    ...(i > 0 ? [pictures[i - 1] as PromptPart] : []),
    ...(piece === '' ? [] : [piece]),
  ]);
  return [...parts, { mark: DELIMITER }];
}
