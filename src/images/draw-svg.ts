import { createRequire } from 'node:module';
import { gunzipSync } from 'node:zlib';
import { runChild } from '../util/child.js';

/** A drawing that takes longer is refused: filters and references can ask for any amount of work in a few bytes. */
const MAX_SECONDS = 20;
/** Longest text of a gzipped drawing. */
const MAX_BYTES = 64 << 20;

/**
 * Draws in a process that can be ended, which a thread inside a library cannot: reads an SVG, writes a PNG, scaled where that
 * is not too large. It ends itself when whoever waits for it is gone.
 */
const PROGRAM = `
const [, library, maxPixels, width] = process.argv;
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
async function draw(svg) {
  let image = require(library)(svg, { limitInputPixels: Number(maxPixels), failOn: 'error' });
  const size = await image.metadata();
  if (width && (width * width * size.height) / size.width <= maxPixels) image = image.resize({ width: Number(width) });
  return image.png({ compressionLevel: 1 }).toBuffer();
}
const chunks = [];
process.stdin.on('data', (chunk) => chunks.push(chunk)).on('end', () =>
  draw(Buffer.concat(chunks)).then(
    (png) => process.stdout.write(png, () => process.exit(0)),
    (error) => process.stderr.write(error.message, () => process.exit(1)),
  ),
);
`;

/** How PNG, JPEG, GIF, WebP, TIFF and AVIF begin: their readers come before that of SVG, whatever else is in the file. */
const RASTER = /^(\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*|....ftypavi)/s;

export function isSvg(bytes: Uint8Array): boolean {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return true; // no other picture is gzipped
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 1 << 16));
  if (RASTER.test(head.toString('latin1', 0, 12))) return false;
  return /^(\ufeff|\s)*</.test(head.toString('utf8', 0, 64)) || head.includes('<\0') || head.includes('<svg');
}

/**
 * A PNG of an SVG, with its transparency; of that width where one is given.
 *
 * @throws Error with the reason, also when it takes longer than `maxSeconds`.
 */
export async function drawSvg(
  bytes: Uint8Array,
  { maxPixels, width, maxSeconds = MAX_SECONDS }: { maxPixels: number; width?: number; maxSeconds?: number },
): Promise<Buffer> {
  const text = bytes[0] === 0x1f ? gunzipSync(bytes, { maxOutputLength: MAX_BYTES }) : bytes;
  const library = createRequire(import.meta.url).resolve('sharp');
  const args = ['--input-type=commonjs', '-e', PROGRAM, library, String(maxPixels), String(width ?? '')];
  const env = { ...process.env, NODE_OPTIONS: '' };
  const { code, how, stdout, log, late } = await runChild(args, { input: text, env, maxSeconds });
  if (code === 0) return stdout;
  if (late) throw new Error(`drawing it takes longer than ${maxSeconds} seconds. Save it as PNG`);
  throw new Error(log || `drawing it ${how}`);
}
