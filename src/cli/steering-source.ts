import { stat } from 'node:fs/promises';
import type { Prompt } from '../prompt/prompt.js';
import type { PromptPart } from '../prompt/types.js';
import { XpatchError } from '../util/errors.js';
import { Pace } from '../util/pace.js';
import { readRecords, recordFormat } from '../util/records.js';
import { isControlVector } from '../vectors/control-vector.js';
import { type SteeringMethod, steeringVector } from '../vectors/steering.js';
import type { DirectionNumbering } from '../vectors/vector-origin.js';
import type { Session } from './common.js';
import { usageError } from './errors.js';
import { unescapeText } from './options.js';
import { notePrompt, textParts } from './prompt-options.js';
import { inRecord, recordPrompt } from './record-prompt.js';
import { type LoadedVector, loadVector } from './vector-file.js';

/** What a direction is made from. */
export interface SteeringSource {
  positive?: string[];
  negative?: string[];
  method?: SteeringMethod;
  vector?: string;
  numbering?: DirectionNumbering;
  escape: boolean;
  literal: boolean;
  bos: boolean;
}

/** The named vector, the difference of two named ones, or one made from prompts. */
export async function steeringSource(session: Session, args: SteeringSource): Promise<LoadedVector> {
  const { positive = [], negative = [], method, vector, numbering } = args;
  if (vector !== undefined) {
    if (positive.length + negative.length > 0 || method !== undefined) {
      throw usageError('--vector is the whole direction: leave out --positive, --negative and --method.');
    }
    return loadVector(vector, { numbering });
  }
  if (positive.length === 0 || negative.length === 0) {
    throw usageError('Give a direction: --positive and --negative, or a --vector.');
  }
  const given = [...positive, ...negative];
  const vectors = given.filter(isVector);
  if (vectors.length === 0) {
    if (numbering !== undefined) throw usageError('--numbering is for control vectors (.gguf), not for prompts.');
    const wanted = await promptsOf(positive, args, session);
    const opposite = await promptsOf(negative, args, session);
    const made = await steeringVector(session.context, {
      positive: wanted,
      negative: opposite,
      method,
      signal: session.signal,
      onProgress: session.track('reading the prompts'),
    });
    return { file: given.join(' - '), vector: made, notes: [] };
  }
  const [plus, minus] = given;
  if (vectors.length < given.length || given.length !== 2 || plus === undefined || minus === undefined) {
    throw usageError('A direction takes two vectors: one file for --positive and one for --negative.');
  }
  if (method !== undefined) throw usageError('--method is for prompts: for two vectors it is always their difference.');
  const [a, b] = [await loadVector(plus, { numbering }), await loadVector(minus, { numbering })];
  return { file: `${plus} - ${minus}`, vector: a.vector.subtract(b.vector), notes: [...a.notes, ...b.notes] };
}

const isVector = (text: string): boolean => /\.safetensors$/i.test(text) || isControlVector(text);

/** A text that names a file stands for its lines, or for the prompts of its records. */
async function promptsOf(texts: readonly string[], args: SteeringSource, session: Session): Promise<Prompt[]> {
  const { model, signal } = session;
  const prompts: Prompt[] = [];
  const pace = new Pace(signal);
  const typed = (text: string) => textParts(args.escape ? unescapeText(text) : text, args.literal, []);
  const add = async (parts: PromptPart[]) => {
    const prompt = await model.prompt(parts, { signal, bos: args.bos });
    await notePrompt(session, parts, prompt);
    prompts.push(prompt);
    if (pace.due()) await pace.rest();
  };
  for (const text of texts) {
    if (!(await namesFile(text))) {
      await add(typed(text));
      continue;
    }
    const isLines = recordFormat(text) === undefined;
    for await (const record of readRecords(text, { signal })) {
      // Records need no escapes: JSON has its own, and a cell may hold line breaks.
      const parts = isLines
        ? typed(String(record.fields.prompt))
        : recordPrompt(text, record, { literal: args.literal });
      await inRecord(text, record, () => add(parts));
    }
  }
  return prompts;
}

/** A text that cannot be a file name, such as a long one, is a prompt, whatever error the system gives. */
async function namesFile(text: string): Promise<boolean> {
  const info = await stat(text).catch(() => undefined);
  if (info === undefined && /^\S+\.(txt|md|jsonl?|ndjson|csv|tsv)$/i.test(text)) {
    const wayOut = 'Check the path; a prompt that ends like a file name is given in a file.';
    throw new XpatchError(
      'FILE_NOT_FOUND',
      `Cannot read the file of prompts ${text}: there is no such file. ${wayOut}`,
    );
  }
  return info !== undefined && !info.isDirectory();
}
