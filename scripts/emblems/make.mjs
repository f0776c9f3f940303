// Draws the emblems and writes data/emblems/*.png and data/tasks/emblem-*.json. Run: node scripts/emblems/make.mjs
// All drawings and wordings are of this folder; nothing is copied, and no emblem is meant to be one that exists.
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { FIGURES } from './figures.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SIZE = 64;

/** Outline in a box of 100 x 100, where the figure stands (center and side of its box), and a wording that does not name it. */
const SHAPES = {
  circle: { path: 'M50 4A46 46 0 0 1 50 96A46 46 0 0 1 50 4Z', box: [50, 50, 56], words: 'a perfectly round plate' },
  square: {
    path: 'M6 6H94V94H6Z',
    box: [50, 50, 64],
    words: 'a plate with four equal sides that rests on one of them',
  },
  diamond: {
    path: 'M50 2L98 50L50 98L2 50Z',
    box: [50, 50, 46],
    words: 'a plate with four equal sides that stands on one corner',
  },
  hexagon: { path: 'M26 8H74L98 50L74 92H26L2 50Z', box: [50, 50, 58], words: 'a plate with six equal sides' },
  triangle: { path: 'M50 4L98 92H2Z', box: [50, 65, 42], words: 'a plate with three sides that rests on one of them' },
  shield: {
    path: 'M8 6H92V46C92 74 70 88 50 97C30 88 8 74 8 46Z',
    box: [50, 46, 56],
    words: 'a plate with a straight top whose sides curve down to a point',
  },
};
/** Ground, the darker shade of its pattern, and the colour of figures that stands out best. */
const COLORS = {
  red: ['#d6202a', '#b3151e', 'white'],
  blue: ['#1f4fd1', '#173da6', 'white'],
  green: ['#1c8c3c', '#14702e', 'white'],
  yellow: ['#ffd92e', '#eec312', 'black'],
  purple: ['#7a2aa8', '#621f88', 'white'],
  orange: ['#f58a1f', '#dd7510', 'black'],
};
const PATTERNS = {
  plain: { draw: () => '', words: '' },
  stripes: {
    draw: (shade) =>
      [10, 35, 60, 85].map((x) => `<rect x="${x}" y="0" width="10" height="100" fill="${shade}"/>`).join(''),
    words: ' crossed by darker upright stripes',
  },
  dots: {
    draw: (shade) =>
      [0, 1, 2, 3, 4]
        .flatMap((i) =>
          [0, 1, 2, 3, 4].map((j) => `<circle cx="${10 + 20 * i}" cy="${10 + 20 * j}" r="4" fill="${shade}"/>`),
        )
        .join(''),
    words: ' sown with darker dots',
  },
  checks: {
    draw: (shade) =>
      [0, 1, 2, 3, 4, 5, 6, 7]
        .flatMap((i) =>
          [0, 1, 2, 3].map(
            (j) => `<rect x="${12.5 * i}" y="${12.5 * (2 * j + (i % 2))}" width="12.5" height="12.5" fill="${shade}"/>`,
          ),
        )
        .join(''),
    words: ' with darker checks like a chessboard',
  },
};
const TASKS = {
  'emblem-figure': [
    'figure',
    'The thing shown in the middle of the emblem:',
    'What is shown in the middle of the emblem?',
    'figure',
  ],
  'emblem-color': [
    'color',
    'The background color of the emblem:',
    'What is the background color of the emblem?',
    'color',
  ],
  'emblem-shape': ['shape', 'The outer shape of the emblem:', 'What is the outer shape of the emblem?', 'shape'],
};

/** Every figure in all shapes and all colours; every pair of shape and colour equally often. */
const emblems = Object.keys(FIGURES).flatMap((figure, f) =>
  Object.keys(SHAPES).map((shape, k) => {
    const color = Object.keys(COLORS)[(5 * k + f) % 6];
    const best = COLORS[color][2];
    const ink = color !== 'yellow' && (f + k) % 4 === 0 ? (best === 'white' ? 'black' : 'white') : best;
    const pattern = Object.keys(PATTERNS)[(f + k + Math.floor(f / 6)) % 4];
    return { figure, shape, color, ink, pattern, border: (f + k) % 3 > 0, wording: (f + k) % 2 };
  }),
);

function svg({ figure, shape, color, ink, pattern, border }) {
  const { path, box } = SHAPES[shape];
  const [x, y, side] = box;
  const [ground, shade] = COLORS[color];
  const place = `translate(${x - side / 2} ${y - side / 2}) scale(${side / 100})`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="${SIZE}" height="${SIZE}"><clipPath id="c"><path d="${path}"/></clipPath>` +
    `<g clip-path="url(#c)"><path d="${path}" fill="${ground}"/>${PATTERNS[pattern].draw(shade)}` +
    `${border ? `<path d="${path}" fill="none" stroke="black" stroke-width="8"/>` : ''}</g>` +
    `<g transform="${place}" fill="${ink}">${FIGURES[figure].draw({ ink, hole: ground })}</g></svg>`
  );
}

function describe({ figure, shape, color, ink, pattern, border, wording }) {
  const what = FIGURES[figure].words[wording];
  const outline = SHAPES[shape].words;
  const ground = `${color}${PATTERNS[pattern].words}`;
  if (wording === 0) {
    return `${capital(outline)}${border ? ' with a black border' : ' without a border'}, its ground ${ground}. In the middle, in ${ink}: ${what}.`;
  }
  return `In ${ink}, ${what}, on a ground of ${ground}. The whole is ${outline}${border ? ', edged in black' : ''}.`;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const file = ({ color, shape, figure }) => `${color}-${shape}-${figure}.png`;

mkdirSync(`${ROOT}/data/emblems`, { recursive: true });
for (const old of readdirSync(`${ROOT}/data/emblems`)) if (old.endsWith('.png')) rmSync(`${ROOT}/data/emblems/${old}`);
let bytes = 0;
for (const emblem of emblems) {
  const { size } = await sharp(Buffer.from(svg(emblem)))
    .flatten({ background: '#ffffff' })
    .png({ compressionLevel: 9, effort: 10, palette: true, colours: 32, dither: 0 })
    .toFile(`${ROOT}/data/emblems/${file(emblem)}`);
  bytes += size;
}
for (const [task, [answer, instruction, question, taskWord]] of Object.entries(TASKS)) {
  const items = emblems.map((emblem) => ({
    input: describe(emblem),
    output: emblem[answer],
    image: `../emblems/${file(emblem)}`,
  }));
  const about = Object.entries({ domain: 'emblem', instruction, question, taskWord });
  const head = about.map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`).join('');
  const lines = items.map((item) => `    ${JSON.stringify(item)}`).join(',\n');
  writeFileSync(`${ROOT}/data/tasks/${task}.json`, `{\n${head}  "items": [\n${lines}\n  ]\n}\n`);
  console.log(task, items.length, 'items,', new Set(items.map(({ output }) => output)).size, 'answers');
}
console.log(emblems.length, 'pictures,', bytes, 'bytes');
