import { createHash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { type GgufHeader, readGgufHeader } from './gguf.js';

/**
 * SHA-256 of what decides how a model is loaded and computed: everything before its tensors' data, and the sizes of its files.
 *
 * @param salt what else decides it
 * @param parts the files of the model, in their order
 * @param first header of the first, if it is known
 */
export async function headerHash(salt: string, parts: readonly string[], first?: GgufHeader): Promise<string> {
  const hash = createHash('sha256').update(salt);
  for (const [i, path] of parts.entries()) {
    const { dataOffset } = i === 0 && first ? first : readGgufHeader(path);
    const { size } = statSync(path);
    hash.update(`\n${size} ${dataOffset}\n`);
    for await (const chunk of createReadStream(path, { end: Math.min(dataOffset, size) - 1, highWaterMark: 1 << 20 }))
      hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}
