import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { GGML, type GgmlName } from '../gguf/tensor-types.js';
import { cacheFolder } from '../hub/cache.js';
import { XpatchError } from '../util/errors.js';
import { makeFolder, writeFileAtomic } from '../util/files.js';
import { parseJson } from '../util/json.js';

/** How fast weights of one type are on a machine. */
export interface TypeSpeed {
  readonly type: GgmlName;
  /** Positions of a prompt in a second. */
  readonly prompt: number;
  /** New tokens in a second. */
  readonly answer: number;
}

/** What `measureTypes` found on this machine. */
export interface TypeSpeeds {
  readonly processor: string;
  readonly device: string;
  readonly types: readonly TypeSpeed[];
}

export const processor = () => cpus()[0]?.model.trim() ?? 'unknown';
const FILE = '.speeds.json';

/** Keeps what was measured for `fastestWeights`. A folder that cannot be written to keeps nothing. */
export async function keepSpeeds(speeds: TypeSpeeds): Promise<void> {
  try {
    await makeFolder(cacheFolder());
    await writeFileAtomic(join(cacheFolder(), FILE), JSON.stringify(speeds));
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
  }
}

/** What `keepSpeeds` kept, if it was of this processor. */
async function knownSpeeds(): Promise<TypeSpeeds | undefined> {
  try {
    const speeds = parseJson(await readFile(join(cacheFolder(), FILE))) as Partial<TypeSpeeds> | null;
    const isSpeed = ({ type, prompt, answer }: TypeSpeed) => type in GGML && prompt > 0 && answer > 0;
    const good = speeds?.processor === processor() && typeof speeds.device === 'string';
    return good && speeds.types?.length && speeds.types.every(isSpeed) ? (speeds as TypeSpeeds) : undefined;
  } catch {
    return undefined; // not there, or not whole
  }
}

/** Which types are fastest on this machine, or how to find out. */
export async function fastestWeights(): Promise<string> {
  const speeds = await knownSpeeds();
  return speeds ? fastestTypes(speeds) : 'fastest weights here: not measured yet, `xpatch bench --types` does';
}

/** Which types are fastest, in a sentence. */
export function fastestTypes({ device, types }: TypeSpeeds): string {
  const of = (what: 'prompt' | 'answer') => {
    const [first, second] = [...types].sort((a, b) => b[what] - a[what]) as [TypeSpeed, TypeSpeed];
    const slow = types.find(({ type }) => type === 'F16') as TypeSpeed;
    const ratio = (one: TypeSpeed) => `${(one[what] / slow[what]).toFixed(1)} times as fast as F16`;
    return `${first.type} (${ratio(first)}), then ${second.type} (${ratio(second).split(' ')[0]})`;
  };
  const where = device === 'auto' ? 'here' : `on ${device}`;
  return `fastest weights ${where}: for prompts ${of('prompt')}; for answers ${of('answer')}`;
}
