// Drawings of an entity in every style: SVG or WebP sources out of the drawing sets. `npm ci` in this folder first.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import sharp from 'sharp';
import { slug } from './facts.mjs';

const require = createRequire(import.meta.url);
const EMOJI_SETS = [
  'twemoji',
  'noto',
  'noto-v1',
  'fluent-emoji',
  'fluent-emoji-flat',
  'fxemoji',
  'emojione',
  'streamline-emojis',
];
const FLAG_SETS = ['circle-flags', 'flag', 'cif', 'flagpack'];
const sets = Object.fromEntries(
  [...EMOJI_SETS, ...FLAG_SETS].map((set) => [set, require(`@iconify-json/${set}`).icons]),
);
const codePoints = Object.fromEntries(
  Object.entries(require('@iconify-json/noto/chars.json')).map(([code, name]) => [name, code]),
);
const FLUENT_3D = require.resolve('@lobehub/fluent-emoji-3d/package.json').replace('package.json', 'assets');

/** SVG source of one icon, scaled so that rasterising never starts below 192 pixels; undefined when absent. */
function svg(set, name) {
  const collection = sets[set];
  const icon = collection.icons[name] ?? collection.icons[collection.aliases?.[name]?.parent];
  if (!icon) return undefined;
  const { left = 0, top = 0 } = icon;
  const width = icon.width ?? collection.width ?? 16;
  const height = icon.height ?? collection.height ?? 16;
  const scale = Math.ceil(192 / Math.max(width, height));
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width * scale}" ` +
      `height="${height * scale}" viewBox="${left} ${top} ${width} ${height}">${icon.body}</svg>`,
  );
}

function fluent3d(name) {
  const code = codePoints[name];
  for (const file of [code, code?.replace(/-fe0f/g, ''), `${code}-fe0f`]) {
    try {
      return readFileSync(`${FLUENT_3D}/${file}.webp`);
    } catch {
      // Try the next spelling of the code point.
    }
  }
  return undefined;
}

/** [style, source] of every drawing of one entity. */
export function drawings(domain, fact) {
  if (domain !== 'country') {
    return fact.icons
      .split(',')
      .flatMap((icon) => [
        ...EMOJI_SETS.map((set) => [set, svg(set, set === 'fxemoji' ? icon.replaceAll('-', '') : icon)]),
        ...['-1', '-2'].map((suffix) => ['streamline-emojis', svg('streamline-emojis', icon + suffix)]),
        ['fluent-emoji-3d', fluent3d(icon)],
      ]);
  }
  const { code, name } = fact;
  const region = new Intl.DisplayNames(['en'], { type: 'region' }).of(code.toUpperCase());
  const spellings = [region, name, FLAG_NAMES[code] ?? name].map((text) =>
    slug(
      text
        .normalize('NFD')
        .replace(/[\u0300-\u036f’']/g, '')
        .replace('&', 'and'),
    ),
  );
  const named = (set, prefix) => [set, spellings.map((text) => svg(set, prefix + text)).find(Boolean)];
  return [
    named('twemoji', 'flag-'),
    named('emojione', 'flag-for-'),
    ['circle-flags', svg('circle-flags', code)],
    ['flag', svg('flag', `${code}-1x1`)],
    ['flag', svg('flag', `${code}-4x3`)],
    ['cif', svg('cif', code)],
    ['flagpack', svg('flagpack', code)],
  ];
}

// Names under which the emoji sets know a country, where neither our name nor the CLDR name fits.
const FLAG_NAMES = {
  kn: 'st-kitts-and-nevis',
  lc: 'st-lucia',
  vc: 'st-vincent-and-grenadines',
  sz: 'swaziland',
  mk: 'macedonia',
  cz: 'czech-republic',
  tr: 'turkey',
  mm: 'myanmar',
};

/** A square picture of one source: its aspect kept, on white. */
export const raster = (source, size) =>
  sharp(source)
    .resize(size, size, { fit: 'contain', background: '#ffffff' })
    .flatten({ background: '#ffffff' })
    .toColourspace('srgb')
    .removeAlpha();
