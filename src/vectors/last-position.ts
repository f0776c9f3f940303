import { largest } from '../util/extremes.js';
import { SafetensorsFile } from '../util/safetensors.js';

/**
 * The last position of a capture of several, where a task is read; undefined for anything else. `TaskVector.load` says what is wrong
 * with a bad file.
 */
export async function lastPosition(path: string): Promise<number | undefined> {
  const file = await SafetensorsFile.open(path).catch(() => undefined);
  await file?.close();
  try {
    const positions: unknown = JSON.parse(file?.metadata.positions ?? 'null');
    if (Array.isArray(positions) && positions.length > 1 && positions.every(Number.isInteger)) {
      return largest(positions);
    }
  } catch {
    // Not JSON: no capture of ours.
  }
  return undefined;
}
