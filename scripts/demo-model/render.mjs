// Rasterises every drawing to 64x64 RGB. `node render.mjs` writes
//   cache/pictures.json + cache/pictures.rgb   all styles, for training (git-ignored)
//   data/images/{noto,twemoji}/<slug>.png      the two styles shipped with the repository
// The held-out style is never given to a training step: see HELD_OUT in pictures.py.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import sharp from 'sharp';
import { facts, hasPicture, ROOT, slug } from './facts.mjs';

const require = createRequire(import.meta.url);
const SIZE = 64;
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
function drawings(domain, fact) {
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

const raster = (source) =>
  sharp(source)
    .resize(SIZE, SIZE, { fit: 'contain', background: '#ffffff' })
    .flatten({ background: '#ffffff' })
    .toColourspace('srgb')
    .removeAlpha();

const pictures = [];
const pixels = [];
// One trained style is shipped: noto where it has the drawing; it has no flags, so circle-flags stands in for them.
const SHIPPED = { twemoji: ['twemoji'], noto: ['noto', 'circle-flags'] };
for (const folder of Object.keys(SHIPPED)) {
  rmSync(`${ROOT}/data/images/${folder}`, { recursive: true, force: true });
  mkdirSync(`${ROOT}/data/images/${folder}`, { recursive: true });
}
for (const [domain, rows] of Object.entries(facts)) {
  for (const fact of rows.filter((row) => hasPicture(domain, row))) {
    const shipped = new Set();
    for (const [style, source] of drawings(domain, fact)) {
      if (!source) continue;
      const image = raster(source);
      pixels.push(await image.clone().raw().toBuffer());
      pictures.push({ domain, entity: fact.name, style });
      for (const [folder, styles] of Object.entries(SHIPPED)) {
        if (!styles.includes(style) || shipped.has(folder)) continue;
        shipped.add(folder);
        await image
          .clone()
          .png({ compressionLevel: 9, effort: 10 })
          .toFile(`${ROOT}/data/images/${folder}/${slug(fact.name)}.png`);
      }
    }
    for (const folder of Object.keys(SHIPPED)) {
      if (!shipped.has(folder)) throw new Error(`${fact.name}: no drawing for data/images/${folder}`);
    }
  }
}
mkdirSync('cache', { recursive: true });
writeFileSync('cache/pictures.json', JSON.stringify(pictures));
writeFileSync('cache/pictures.rgb', Buffer.concat(pixels));
const counts = {};
for (const { style, domain } of pictures) {
  counts[style] ??= {};
  counts[style][domain] = (counts[style][domain] ?? 0) + 1;
}
console.table(counts);
