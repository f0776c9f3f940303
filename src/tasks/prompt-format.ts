import type { PromptPart } from '../prompt/types.js';
import { type AnswerFormat, plainAnswers } from './answer-tokens.js';
import type { TaskItem } from './task.js';
import { checkTemplate, type Modality, PAPER_TEMPLATE, PartList, type Template } from './template.js';

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
  /** The parts of a prompt, with the mark at their end. */
  write(content: PromptContent): PromptPart[];
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

/** The paper's template. */
export const PAPER_FORMAT: PromptFormat = plainFormat(PAPER_TEMPLATE);
