// `xpatch/convert`: from checkpoints of the hub to GGUF files.
export {
  CONVERTED_ARCHITECTURES,
  type Conversion,
  type ConvertedFamily,
  type ConvertedFile,
  type ConvertOptions,
  convertCheckpoint,
} from './convert/convert.js';
export { CONVERSION_TYPES, type ConversionType } from './gguf/tensor-types.js';
export { downloadCheckpoint } from './hub/download.js';
