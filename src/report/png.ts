import sharp from 'sharp';
import { type Figure, figureToSvg } from './figure.js';

/**
 * A figure as PNG, at twice the size of its SVG. Letters are drawn as outlines, so that it looks the same on machines
 * without fonts.
 *
 * @throws {XpatchError} as `figureToSvg`
 */
export async function figureToPng(figure: Figure): Promise<Buffer> {
  return sharp(Buffer.from(figureToSvg(figure, 'outlines')), { density: 144 })
    .png({ palette: true })
    .toBuffer();
}
