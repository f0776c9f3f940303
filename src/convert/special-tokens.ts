import { bool, type GgufField, text, u32 } from '../gguf/gguf-writer.js';
import { isRecord } from '../util/json.js';
import type { Checkpoint } from './checkpoint.js';
import type { TokenizerJson } from './vocabulary.js';

/** Kinds of special tokens in transformers' files, and GGUF's names of their ids (the spelling is GGUF's). */
const KINDS = {
  bos: 'bos_token_id',
  eos: 'eos_token_id',
  unk: 'unknown_token_id',
  sep: 'seperator_token_id',
  pad: 'padding_token_id',
  cls: 'cls_token_id',
  mask: 'mask_token_id',
} as const;
type Kind = keyof typeof KINDS;
const NAMES = Object.keys(KINDS) as Kind[];

/**
 * The keys of special tokens and of the chat template: ids from tokenizer_config.json (by their texts) and config.json, and
 * what tokenizer.json's template puts around a text.
 *
 * @param size of the vocabulary; ids beyond it are left out
 */
export async function specialTokenFields(checkpoint: Checkpoint, size: number): Promise<Record<string, GgufField>> {
  const tokenizer = (await checkpoint.json('tokenizer.json')) as TokenizerJson | undefined;
  const config = (await checkpoint.json('tokenizer_config.json')) ?? {};
  const ids = new Map<Kind, number>();
  const set = (kind: Kind, id: unknown) => {
    if (Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < size && !ids.has(kind))
      ids.set(kind, id as number);
  };
  const adds = tokenizer ? templateAdds(checkpoint, tokenizer, config) : {};
  const added = (tokenizer?.added_tokens ?? []) as { id?: unknown; content?: unknown }[];
  for (const kind of NAMES) {
    const flag = config[`add_${kind}_token`];
    if (typeof flag === 'boolean') adds[kind] = flag;
    const content = contentOf(config[`${kind}_token`]);
    if (content !== undefined) set(kind, added.find((token) => token.content === content)?.id);
  }
  const textConfig = (checkpoint.config.text_config ?? {}) as Record<string, unknown>;
  for (const kind of NAMES) set(kind, checkpoint.config[`${kind}_token_id`] ?? textConfig[`${kind}_token_id`]);

  const fields: Record<string, GgufField> = {};
  for (const [kind, id] of ids) fields[`tokenizer.ggml.${KINDS[kind]}`] = u32(id);
  for (const kind of ['bos', 'eos', 'sep'] as const) {
    if (adds[kind] !== undefined) fields[`tokenizer.ggml.add_${kind}_token`] = bool(adds[kind]);
  }
  const template = await chatTemplate(checkpoint, config);
  if (template !== undefined) fields['tokenizer.chat_template'] = text(template);
  return fields;
}

function contentOf(token: unknown): string | undefined {
  const content = typeof token === 'object' && token !== null ? (token as { content?: unknown }).content : token;
  return typeof content === 'string' ? content : undefined;
}

interface Part {
  SpecialToken?: { id?: string };
  Sequence?: { id?: string };
}

/** Whether the template of tokenizer.json puts BOS in front of a text, EOS after it, and a separator between two. */
function templateAdds(
  checkpoint: Checkpoint,
  { post_processor: processor }: TokenizerJson,
  config: Readonly<Record<string, unknown>>,
): Partial<Record<Kind, boolean>> {
  const listOf = (value: unknown): Record<string, unknown>[] => {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value) && value.every(isRecord)) return value;
    throw checkpoint.invalid('the post_processor of its tokenizer.json is not one of transformers');
  };
  const [whole] = listOf(processor && [processor]);
  const template = [...(whole ? [whole] : []), ...listOf(whole?.processors)].find(
    ({ type }) => type === 'TemplateProcessing',
  );
  if (!template) return {};
  const adds: Partial<Record<Kind, boolean>> = {};
  const [single, pair] = [listOf(template.single), listOf(template.pair)] as [Part[], Part[]];
  const first = single.length > 1 ? single[0]?.SpecialToken?.id : undefined;
  const last = single.length > 1 ? single.at(-1)?.SpecialToken?.id : undefined;
  const bos = contentOf(config.bos_token) ?? contentOf(config.cls_token) ?? first;
  if (first !== undefined) adds.bos = first === bos || first === contentOf(config.cls_token);
  if (last !== undefined) adds.eos = last === (contentOf(config.eos_token) ?? contentOf(config.sep_token) ?? last);
  const from = first !== undefined && pair[0]?.SpecialToken?.id === first ? 1 : 0;
  const to = last !== undefined && pair.at(-1)?.SpecialToken?.id === last ? pair.length - 1 : pair.length;
  const between = pair.slice(from, to);
  if (between.length > 2 && between[0]?.Sequence?.id === 'A' && between.at(-1)?.Sequence?.id === 'B') {
    const separators = [contentOf(config.sep_token), contentOf(config.eos_token)];
    const [one, two] = between.slice(1, -1).map((part) => part.SpecialToken?.id);
    const isSeparator = (id: string | undefined) => id !== undefined && separators.includes(id);
    adds.sep = (isSeparator(one) && last === undefined) || (between.length === 4 && isSeparator(two));
  }
  return adds;
}

async function chatTemplate(
  checkpoint: Checkpoint,
  config: Readonly<Record<string, unknown>>,
): Promise<string | undefined> {
  // In the order of transformers.
  const candidates = [
    await checkpoint.text('chat_template.jinja'),
    config.chat_template,
    (await checkpoint.json('chat_template.json'))?.chat_template,
  ];
  for (const candidate of candidates) {
    if (typeof candidate === 'string') return candidate;
    if (!Array.isArray(candidate)) continue;
    const standard = candidate.find((one) => (one as { name?: unknown } | null)?.name === 'default') as {
      template?: unknown;
    };
    if (typeof standard?.template === 'string') return standard.template;
  }
  return undefined;
}
