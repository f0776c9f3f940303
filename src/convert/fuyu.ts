import { bool, text, u32 } from '../gguf/gguf-writer.js';
import { OWN_KEYS } from '../gguf/own-keys.js';
import { type ConversionType, imageConversion, imageType } from '../gguf/tensor-types.js';
import type { Checkpoint } from './checkpoint.js';
import type { Config } from './config.js';
import { generalFields } from './general.js';
import { persimmonShape, planPersimmon } from './persimmon.js';
import { type FilePlan, TensorTaker } from './plan.js';
import { tokenId, type Vocabulary } from './vocabulary.js';

const NEWLINE = '|NEWLINE|';
/** What Mantis' prompts have around a picture; Adept's Fuyu has neither. */
const BEGIN = '|IMAGE|';
const END = '|ENDOFIMAGE|';

/** The two files of a Fuyu checkpoint, Mantis' or Adept's: a Persimmon, and the projection of patches. */
export async function planFuyu(
  checkpoint: Checkpoint,
  root: Config,
  preprocessor: Config,
  readVocabulary: (size: number) => Promise<Vocabulary>,
  type: ConversionType,
): Promise<FilePlan[]> {
  // The oldest files have the text model's settings next to the rest.
  const textConfig = root.has('text_config') ? root.section('text_config') : root.with({ model_type: undefined });
  const vocabulary = await readVocabulary(persimmonShape(textConfig).nVocab);
  return [
    await planPersimmon(checkpoint, textConfig, vocabulary, type, textName),
    await planProjection(checkpoint, root, textConfig, preprocessor, vocabulary, type),
  ];
}

const PROJECTION = /^(?:model\.)?(vision_embed_tokens\..*)$/;

function textName(name: string): string | null {
  if (PROJECTION.test(name) || name.endsWith('.rotary_emb.inv_freq')) return null;
  return name
    .replace(/^language_model\.model\./, 'model.')
    .replace(/^language_model\.lm_head\./, 'lm_head.')
    .replace(/^model\.language_model\./, 'model.');
}

function imageName(name: string): string | null {
  return PROJECTION.exec(name)?.[1] ?? (/(^|\.)embed_tokens\.weight$/.test(name) ? 'embed_tokens.weight' : null);
}

async function planProjection(
  checkpoint: Checkpoint,
  root: Config,
  textConfig: Config,
  preprocessor: Config,
  vocabulary: Vocabulary,
  type: ConversionType,
): Promise<FilePlan> {
  root.require('num_channels', [3], 3);
  preprocessor.requirePixels();
  preprocessor.require('do_pad', [true], true);
  preprocessor.require('padding_mode', ['constant'], 'constant');
  preprocessor.require('padding_value', [1], 1);
  const patchSize = root.count('patch_size', 30, 256);
  const cut = preprocessor.section('patch_size');
  for (const side of ['height', 'width']) cut.require(side, [patchSize], patchSize);
  const { nEmbd, nVocab } = persimmonShape(textConfig);
  const newline = tokenId(vocabulary, NEWLINE);
  if (newline === undefined) throw checkpoint.invalid(`its tokenizer has no ${NEWLINE}`);
  const begin = tokenId(vocabulary, BEGIN);
  const end = tokenId(vocabulary, END);
  if ((begin === undefined) !== (end === undefined)) throw checkpoint.invalid(`it has only one of ${BEGIN} and ${END}`);

  const taker = new TensorTaker(checkpoint, imageName, (name, ne) => imageType(type, name, ne));
  taker.takeBoth('mm.patch_embd', 'vision_embed_tokens', [nEmbd, patchSize * patchSize * 3]);
  taker.take('mm.newline', 'embed_tokens.weight', [nEmbd], {
    rows: () => Int32Array.of(newline),
    from: [nVocab, nEmbd],
  });
  taker.requireAllTaken();

  const size = preprocessor.section('size');
  const maxHeight = size.count('height', 1080, 1 << 14);
  const maxWidth = size.count('width', 1920, 1 << 14);
  const { mean, std } = preprocessor.normalisation();
  return {
    kind: 'mmproj',
    tensors: taker.plans,
    metadata: {
      ...(await generalFields(checkpoint, 'mmproj', 'clip', imageConversion(type), taker.plans)),
      'clip.has_vision_encoder': bool(true),
      'clip.projector_type': text('fuyu'),
      'clip.vision.image_size': u32(Math.max(maxHeight, maxWidth)),
      'clip.vision.patch_size': u32(patchSize),
      'clip.vision.projection_dim': u32(nEmbd),
      'clip.vision.image_mean': { type: 'f32', list: mean },
      'clip.vision.image_std': { type: 'f32', list: std },
      [OWN_KEYS.fuyuMaxHeight]: u32(maxHeight),
      [OWN_KEYS.fuyuMaxWidth]: u32(maxWidth),
      ...(begin !== undefined && {
        [OWN_KEYS.imageBegin]: u32(begin),
        [OWN_KEYS.imageEnd]: u32(end as number),
        [OWN_KEYS.promptFormat]: text('mantis'),
      }),
    },
  };
}
