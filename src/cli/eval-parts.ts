import { addressOf } from '../experiment/queue/broker.js';
import { KERNELS } from '../experiment/queue/protocol.js';
import { parseShard, type Shard } from '../experiment/shard.js';
import type { Experiment } from '../experiment/types.js';
import { usageError } from './errors.js';
import { type ArgumentsOf, choice, grouped, text } from './option.js';

/** Which part of an experiment a process runs, or who runs it (docs/scale.md). */
export const PART_OPTIONS = grouped('Several machines', {
  shard: text('Run a part of the queries: 2/5 is the second of five', { value: 'I/N' }),
  stage: choice(['validation', 'test'], 'Only the validation, or only the test with the layer of --layer-from'),
  layerFrom: text('With --stage test: the validation run, whole or merged', { value: 'RUN', completes: 'folder' }),
  queue: text('Hand the queries to workers through this Redis server; see work', { value: 'redis://HOST' }),
  kernels: choice(KERNELS, 'With --queue: workers that compute alike, or any. Defaults to same'),
});

type PartArguments = ArgumentsOf<typeof PART_OPTIONS> & { plan: boolean };

/** @throws {XpatchError} INVALID_ARGUMENT for options that make no sense together */
export function partsOf(args: PartArguments, { layers }: Experiment) {
  const { stage, layerFrom, queue: url, kernels = 'same' } = args;
  const part = args.shard === undefined ? undefined : parseShard(args.shard);
  if (stage !== undefined && layers !== 'validation') {
    throw usageError('--stage is for runs that choose their layer; this one names its layers. Use --shard alone.');
  }
  if ((stage === 'test') !== (layerFrom !== undefined)) {
    throw usageError('--stage test and --layer-from go together: give both.');
  }
  if (url === undefined && args.kernels !== undefined) {
    throw usageError('--kernels is about the workers of --queue: leave it out or add --queue.');
  }
  if (url !== undefined && (part ?? stage) !== undefined) {
    throw usageError('--queue divides the run by itself: leave out --shard and --stage.');
  }
  if (url !== undefined && args.plan) throw usageError('--plan asks nothing: leave out --queue.');
  if (url !== undefined) addressOf(url);
  const shard: Shard | undefined = stage === 'validation' ? { index: 1, of: 1, ...part, stage } : part;
  return { shard, layerFrom, queue: url === undefined ? undefined : { url, kernels } };
}
