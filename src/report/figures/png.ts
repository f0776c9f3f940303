import { type Figure, figureToSvg } from './figure.js';

/**
 * A figure as PNG, at twice the size of its SVG. Letters are drawn as outlines, so that it looks the same on machines
 * without fonts.
 *
 * @throws {XpatchError} as `figureToSvg`
 */
export async function figureToPng(figure: Figure): Promise<Buffer> {
  return svgToPng(figureToSvg(figure, 'outlines'));
}

/** An SVG of mode `outlines` as PNG, at twice its size. */
export async function svgToPng(svg: string): Promise<Buffer> {
  const { default: sharp } = await import('sharp');
  return sharp(Buffer.from(svg), { density: 144, unlimited: true }).png({ palette: true }).toBuffer();
}
