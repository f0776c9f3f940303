import type { HookName } from '../hooks/types.js';
import { writeSafetensors } from '../util/safetensors.js';
import { describeModel, requireNotAborted, withSession } from './common.js';
import { usageError } from './errors.js';
import type { ModelArguments, OutputArguments } from './options.js';
import { openOutput } from './output-file.js';
import type { Terminal } from './terminal.js';

type VisionArguments = ModelArguments &
  OutputArguments & {
    image?: string[] | undefined;
    layers: 'all' | number[];
    output: string;
    prompt?: string | undefined;
    promptFile?: string | undefined;
    tokens?: number[] | undefined;
    bos: boolean;
    literal: boolean;
    positions?: unknown;
    at?: unknown;
    heads?: unknown;
    hook: readonly HookName[];
  };

/** What the states of pictures are called, in files and messages. */
const POINT = 'vision.resid_post';

/** `xpatch capture --vision`: states of pictures in their encoder, a tensor a picture, or a tile of one. */
export async function captureVision(args: VisionArguments, terminal: Terminal): Promise<void> {
  const { image = [], layers, json } = args;
  if (image.length === 0) throw usageError('--vision reads pictures: give --image.');
  const other = (['prompt', 'promptFile', 'tokens'] as const).find((name) => args[name] !== undefined);
  if (other) throw usageError('--vision takes no prompt: leave it out.');
  if (!args.bos || args.literal) throw usageError('--vision takes no prompt: leave out --no-bos and --literal.');
  const part = (['positions', 'at', 'heads'] as const).find((name) => args[name] !== undefined);
  const point = args.hook.join() === 'resid_post' ? part : 'hook';
  if (point) throw usageError(`--vision reads whole rows of whole pictures after the blocks: leave out --${point}.`);
  await using output = await openOutput(args.output, terminal, { json, inputs: [args.model, args.mmproj, ...image] });
  await withSession(args, terminal, async ({ model, signal, progress }) => {
    const found = [];
    for (const [i, picture] of image.entries()) {
      progress.update('encoding', i / image.length);
      requireNotAborted(signal);
      for (const states of await model.visionStates(picture, { layers })) found.push({ picture, ...states });
    }
    const nameOf = (i: number) => (found.length === 1 ? POINT : `${POINT}.${i}`);
    const shapes = found.map(({ layers, nRows, width }) => [layers.length, nRows, width]);
    const tensors = found.map(({ data }, i) => [nameOf(i), { data, shape: shapes[i] as number[] }] as const);
    const metadata = {
      format: 'xpatch.vision/1',
      hook: POINT,
      layers: JSON.stringify(found[0]?.layers),
      pictures: JSON.stringify(found.map(({ picture }) => picture)),
      model: JSON.stringify(model.identity),
    };
    await writeSafetensors(output.path, Object.fromEntries(tensors), metadata);
    await output.deliver();
    progress.done();
    const pictures = found.map(({ picture }, i) => ({ tensor: nameOf(i), picture, shape: shapes[i] }));
    if (json) {
      const { identity } = model;
      return terminal.printJson({
        output: args.output,
        hook: POINT,
        layers: found[0]?.layers,
        pictures,
        model: identity,
      });
    }
    for (const { tensor, picture, shape } of pictures) {
      terminal.print(
        `${output.name}: ${tensor} [${shape?.join(', ')}] (${picture}, ${describeModel(model.identity)})\n`,
      );
    }
  });
}
