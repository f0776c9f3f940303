import { STEPS } from './steps.js';

type Oklch = readonly [lightness: number, chroma: number, hue: number];

// Pale yellow over teal to indigo, as viridis runs; lightness falls evenly, so that the order can be read in grey and with
// any colour vision. The little end is the one near the ground: pale on a light page, dark on a dark one.
const LIGHT: readonly Oklch[] = [
  [0.975, 0.015, 105],
  [0.9, 0.06, 130],
  [0.79, 0.09, 175],
  [0.65, 0.1, 220],
  [0.5, 0.115, 256],
  [0.38, 0.13, 278],
];
const DARK: readonly Oklch[] = [
  [0.24, 0.02, 275],
  [0.37, 0.08, 272],
  [0.52, 0.1, 245],
  [0.67, 0.1, 205],
  [0.81, 0.11, 160],
  [0.94, 0.1, 108],
];

/** The rules `.q0` to `.q31`: ground and ink of a cell, and `fill` for shapes, for the light and the dark scheme. */
export function scaleRules(): string {
  const pairs = scaleColours();
  return pairs
    .map(({ light, dark }, i) => {
      const ground = `light-dark(${light.ground},${dark.ground})`;
      return `.q${i}{background:${ground};fill:${ground};color:light-dark(${light.ink},${dark.ink})}`;
    })
    .join('\n');
}

/** Ground and ink of every step, `#rrggbb`. The ink is black or white, whichever has more contrast. */
export function scaleColours() {
  return Array.from({ length: STEPS }, (_, i) => ({ light: pair(LIGHT, i), dark: pair(DARK, i) }));
}

function pair(anchors: readonly Oklch[], step: number) {
  const rgb = at(anchors, step / (STEPS - 1));
  const luminance = luminanceOf(rgb);
  return { ground: hex(rgb), ink: contrast(luminance, 0) > contrast(luminance, 1) ? '#000000' : '#ffffff' };
}

/** Contrast ratio of two relative luminances (WCAG 2.2). */
export function contrast(a: number, b: number): number {
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

/** Relative luminance (WCAG 2.2) of sRGB from 0 to 1. */
export function luminanceOf(rgb: readonly number[]): number {
  const [r, g, b] = rgb.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)) as Triple;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

type Triple = [number, number, number];

function at(anchors: readonly Oklch[], t: number): Triple {
  const place = t * (anchors.length - 1);
  const i = Math.min(anchors.length - 2, Math.floor(place));
  const [from, to] = [anchors[i], anchors[i + 1]].map((anchor) => toOklab(anchor as Oklch)) as [Triple, Triple];
  return toSrgb(from.map((x, axis) => x + (place - i) * ((to[axis] as number) - x)) as Triple);
}

function toOklab([lightness, chroma, hue]: Oklch): Triple {
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

/** OKLab (Ottosson 2020, bottosson.github.io/posts/oklab) to sRGB, cut to its gamut. */
function toSrgb([lightness, a, b]: Triple): Triple {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const encode = (x: number) => (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
  return linear.map((x) => Math.min(1, Math.max(0, encode(x)))) as Triple;
}

const hex = (rgb: Triple): string =>
  `#${rgb
    .map((x) =>
      Math.round(x * 255)
        .toString(16)
        .padStart(2, '0'),
    )
    .join('')}`;
