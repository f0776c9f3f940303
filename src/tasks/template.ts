import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import type { TaskItem } from './task.js';

/** What stands for the input of an item: its name or its picture. */
export type Modality = 'text' | 'image';

/** How prompts are written. `{input}` and `{output}` stand for the fields of an item; the vector is read at the end of `query`. */
export interface Template {
  /** Defaults to `Q:{input}\nA:{output}\n\n`. */
  readonly example: string;
  /** Defaults to `Q:{input}\nA:`. */
  readonly query: string;
  /** Text that ends an answer, or several. Defaults to a line break. */
  readonly stop: string | readonly string[];
}

/** The paper's template, to the byte. */
export const PAPER_TEMPLATE: Template = { example: 'Q:{input}\nA:{output}\n\n', query: 'Q:{input}\nA:', stop: '\n' };

/** `paper`, the model's own chat template, or one written out. */
export type PromptTemplate = 'paper' | 'chat' | Template;

/** Name of the one mark in every prompt: the token that a vector is read at or written to, the `:` of the paper's template. */
export const DELIMITER = 'delimiter';

/**
 * @throws {XpatchError} CONFIG_INVALID for an example without `{input}` or `{output}`, a query without `{input}` or with
 *   `{output}`, another word in braces, and an empty stop
 */
export function checkTemplate({ example, query, stop }: Template): void {
  const count = (text: string, field: string) => text.split(`{${field}}`).length - 1;
  const wrong = (what: string) =>
    new XpatchError('CONFIG_INVALID', `template: ${what}. The paper's is ${JSON.stringify(PAPER_TEMPLATE)}.`);
  if (count(example, 'input') !== 1 || count(example, 'output') !== 1) {
    throw wrong('the example needs {input} and {output}, each once');
  }
  if (count(query, 'input') !== 1 || count(query, 'output') !== 0)
    throw wrong('the query needs {input} once, no {output}');
  if ([stop].flat().some((text) => text === '') || stop.length === 0) throw wrong('the stop is empty');
  const unknown = [
    ...placeholderProblems('template.example', example, ['input', 'output']),
    ...placeholderProblems('template.query', query, ['input']),
  ];
  if (unknown.length > 0) throw new XpatchError('CONFIG_INVALID', `${unknown.join('; ')}.`);
}

/** What is wrong with the words in braces of a text, each of which must be one of `known`: a misspelt one would reach the model. */
export function placeholderProblems(path: string, text = '', known: readonly string[]): string[] {
  const found = new Set([...text.matchAll(/\{([\w-]+)\}/g)].map(([, word]) => word as string));
  const allowed = known.map((word) => `{${word}}`).join(' and ');
  return [...found]
    .filter((word) => !known.includes(word))
    .map((word) => `${path}: {${word}} has no meaning here; allowed: ${allowed}`);
}

/** Parts of a prompt as they grow. What an item says is literal: a task about `<s>` or `<image>` is about these letters. */
export class PartList {
  readonly #parts: PromptPart[] = [];

  text(text: string): void {
    if (text !== '') this.#parts.push(text);
  }

  literal(text: string): void {
    if (text !== '') this.#parts.push({ literal: text });
  }

  /** @throws {XpatchError} TASK_INVALID when a picture is asked for and the item has none */
  input(item: TaskItem, modality: Modality): void {
    if (modality === 'text') this.literal(item.input);
    else this.#parts.push({ image: pictureOf(item) });
  }

  /** One half of a template with the fields of an item in it; `question` follows its input. */
  fill(pattern: string, item: TaskItem, modality: Modality, question?: string): void {
    for (const piece of pattern.split(/(\{input\}|\{output\})/)) {
      if (piece === '{output}') this.literal(item.output);
      else if (piece !== '{input}') this.text(piece);
      else {
        this.input(item, modality);
        if (question !== undefined) this.literal(modality === 'text' ? ` ${question}` : question);
      }
    }
  }

  /** The parts, with the mark at their end. */
  marked(): PromptPart[] {
    return [...this.#parts, { mark: DELIMITER }];
  }
}

function pictureOf(item: TaskItem): string {
  if (item.image !== undefined) return item.image;
  const wayOut = 'Load the task with pictures, and split it with pictures: true.';
  throw new XpatchError('TASK_INVALID', `Item ${JSON.stringify(item.input)} has no picture. ${wayOut}`);
}
