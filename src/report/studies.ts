import { XpatchError } from '../util/errors.js';
import type { StudyKind } from './study-kind.js';

// Each is loaded when it is wanted: no other command needs the libraries behind it.
const STUDIES = {
  evolution: async () => (await import('./evolution.js')).evolution,
  decode: async () => (await import('./decodings.js')).decoding,
  embed: async () => (await import('./embedding.js')).embedding,
  heads: async () => (await import('./heads.js')).heads,
  tune: async () => (await import('./tuned-lens.js')).tuning,
  compute: async () => (await import('./experiment/compute.js')).compute,
} as const;

/** Its options and results are those of its own manifest and lines. */
// biome-ignore lint/suspicious/noExplicitAny: only the study knows them
type AnyStudy = StudyKind<any, any>;

/** The study that a manifest names. @throws {XpatchError} RUN_INVALID */
export async function findStudy(name: string): Promise<AnyStudy> {
  if (Object.hasOwn(STUDIES, name)) return (await STUDIES[name as keyof typeof STUDIES]()) as AnyStudy;
  throw new XpatchError(
    'RUN_INVALID',
    `The run is of a study ${JSON.stringify(name)}, which this version does not know.`,
  );
}
