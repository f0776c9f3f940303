// The figures of the emblems, drawn here, each in a box of 100 x 100. `ink` is the figure's colour, `hole` the ground's.
// Every figure has two wordings that do not name it.

const points = (list) => list.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(' ');
const around = (n, draw) => Array.from({ length: n }, (_, i) => draw((360 / n) * i)).join('');
const star = Array.from({ length: 10 }, (_, i) => {
  const angle = (Math.PI * (i - 2.5)) / 5;
  const radius = i % 2 === 0 ? 46 : 19;
  return [50 + radius * Math.cos(angle), 52 + radius * Math.sin(angle)];
});

export const FIGURES = {
  star: {
    draw: () => `<polygon points="${points(star)}"/>`,
    words: [
      'five sharp points that spread evenly from one center',
      'five pointed arms, as a far light in the night sky is drawn',
    ],
  },
  moon: {
    draw: () => '<path d="M62 8A42 42 0 0 0 62 92A50 50 0 0 1 62 8Z"/>',
    words: [
      'a slim sickle whose two horns point to the right',
      'a bright curved slice, as the body that lights the night looks when it is young',
    ],
  },
  sun: {
    draw: () =>
      `<circle cx="50" cy="50" r="22"/>${around(12, (a) => `<rect x="47" y="6" width="6" height="16" transform="rotate(${a} 50 50)"/>`)}`,
    words: [
      'a disc from which twelve straight rays go out',
      'a round face of light with beams on all sides, as the sky has it by day',
    ],
  },
  heart: {
    draw: () => '<path d="M50 90C10 58 6 34 18 20C30 8 46 14 50 32C54 14 70 8 82 20C94 34 90 58 50 90Z"/>',
    words: [
      'two round lobes above that run together into a point below',
      'the sign of love, with a notch at the top and a tip at the bottom',
    ],
  },
  arrow: {
    draw: () => '<polygon points="50,6 82,42 62,42 62,94 38,94 38,42 18,42"/>',
    words: [
      'a straight shaft that ends in a wide pointed head and shows upward',
      'a pointer: a broad tip above, a plain bar below',
    ],
  },
  anchor: {
    draw: ({ ink }) =>
      `<g fill="none" stroke="${ink}"><circle cx="50" cy="15" r="9" stroke-width="6"/><path d="M50 24V88M31 38H69" stroke-width="8"/>` +
      '<path d="M15 58C17 96 83 96 85 58" stroke-width="8"/></g><polygon points="4,68 15,46 29,64"/><polygon points="96,68 85,46 71,64"/>',
    words: [
      'a ring above an upright bar that ends in two upturned hooks',
      'the iron that holds a ship in place, with a ring, a crossbar and two flukes',
    ],
  },
  crown: {
    draw: () =>
      '<polygon points="12,82 10,34 30,54 50,22 70,54 90,34 88,82"/><circle cx="10" cy="28" r="7"/><circle cx="50" cy="15" r="7"/><circle cx="90" cy="28" r="7"/>',
    words: ['a band with three tall points, each with a ball on it', 'what a king wears on his head'],
  },
  key: {
    draw: ({ ink }) =>
      `<circle cx="26" cy="50" r="17" fill="none" stroke="${ink}" stroke-width="10"/><rect x="44" y="45" width="52" height="10"/><rect x="84" y="55" width="9" height="18"/><rect x="66" y="55" width="9" height="14"/>`,
    words: ['a ring on the left, a long bar, and two teeth at its end', 'the small tool that opens a lock'],
  },
  sword: {
    draw: () =>
      '<polygon points="50,2 58,14 58,66 42,66 42,14"/><rect x="26" y="66" width="48" height="8"/><rect x="45" y="74" width="10" height="16"/><circle cx="50" cy="92" r="7"/>',
    words: [
      'a long straight blade with its tip up, a crossguard, and a short grip',
      'the weapon of a knight, held upright',
    ],
  },
  tree: {
    draw: () =>
      '<rect x="43" y="60" width="14" height="36"/><circle cx="50" cy="30" r="25"/><circle cx="29" cy="46" r="18"/><circle cx="71" cy="46" r="18"/>',
    words: ['a thick stem that carries a wide round mass of foliage', 'a tall plant with a trunk and a leafy top'],
  },
  fish: {
    draw: ({ hole }) =>
      `<ellipse cx="42" cy="50" rx="36" ry="22"/><polygon points="68,50 96,26 96,74"/><circle cx="24" cy="44" r="5" fill="${hole}"/>`,
    words: [
      'a smooth oval body with one round eye on the left and a forked tail on the right',
      'an animal with fins that lives in water, seen from the side',
    ],
  },
  leaf: {
    draw: ({ hole, ink }) =>
      `<path d="M50 4C88 28 88 66 50 84C12 66 12 28 50 4Z"/><path d="M50 84V98" stroke="${ink}" stroke-width="6"/><path d="M50 22V84M50 48L68 34M50 48L32 34M50 66L68 52M50 66L32 52" stroke="${hole}" stroke-width="4" fill="none"/>`,
    words: [
      'a flat blade that is pointed above, with a rib, side veins and a short stalk',
      'one of the many thin green parts that grow on a twig',
    ],
  },
  flower: {
    draw: ({ hole }) =>
      `${around(6, (a) => `<ellipse cx="50" cy="24" rx="13" ry="20" transform="rotate(${a} 50 50)"/>`)}<circle cx="50" cy="50" r="12" fill="${hole}"/>`,
    words: ['six rounded petals around a small disc', 'a blossom seen from above'],
  },
  bell: {
    draw: () =>
      '<circle cx="50" cy="10" r="7"/><path d="M50 12C70 12 74 32 76 52C78 66 88 68 90 78H10C12 68 22 66 24 52C26 32 30 12 50 12Z"/><circle cx="50" cy="86" r="9"/>',
    words: [
      'a hollow cup that hangs mouth down, wider at its rim, with a clapper',
      'what rings from the top of a church',
    ],
  },
  boat: {
    draw: () =>
      '<polygon points="8,68 92,68 76,92 24,92"/><rect x="47" y="6" width="6" height="62"/><polygon points="57,10 88,60 57,60"/><polygon points="43,20 43,60 16,60"/>',
    words: ['a hull below a mast with two three-cornered sails', 'a small craft that the wind drives over the water'],
  },
  house: {
    draw: ({ hole }) =>
      `<polygon points="50,8 96,50 4,50"/><rect x="17" y="48" width="66" height="44"/><rect x="42" y="62" width="16" height="30" fill="${hole}"/><rect x="24" y="58" width="12" height="12" fill="${hole}"/><rect x="64" y="58" width="12" height="12" fill="${hole}"/>`,
    words: ['a low building with a steep roof, a door and two windows', 'a home with walls, a door and a gable'],
  },
  tower: {
    draw: ({ hole }) =>
      `<path d="M22 8H36V18H43V8H57V18H64V8H78V34H70V86H78V94H22V86H30V34H22Z"/><rect x="46" y="42" width="8" height="14" fill="${hole}"/><path d="M42 94V76A8 8 0 0 1 58 76V94Z" fill="${hole}"/>`,
    words: [
      'a tall narrow building of stone with battlements, a slit window and an arched gate',
      'the highest part of a castle, with a notched top',
    ],
  },
  mountain: {
    draw: ({ hole }) =>
      `<polygon points="2,90 40,14 60,54 70,40 98,90"/><path d="M27 42L34 48L40 40L46 48L53 42" stroke="${hole}" stroke-width="5" fill="none"/>`,
    words: [
      'two steep peaks side by side, the higher one with a white cap',
      'a mass of rock that rises to a high summit',
    ],
  },
  eye: {
    draw: ({ hole }) =>
      `<path d="M3 50C26 16 74 16 97 50C74 84 26 84 3 50Z"/><circle cx="50" cy="50" r="18" fill="${hole}"/><circle cx="50" cy="50" r="8"/>`,
    words: ['a long almond with a ring and a dark spot at its center', 'the part of the face that sees, wide open'],
  },
  wheel: {
    draw: ({ ink }) =>
      `<circle cx="50" cy="50" r="40" fill="none" stroke="${ink}" stroke-width="10"/>${around(8, (a) => `<rect x="47.5" y="12" width="5" height="38" transform="rotate(${a} 50 50)"/>`)}<circle cx="50" cy="50" r="10"/>`,
    words: ['a rim with eight spokes that meet in a hub', 'the round thing on which a cart rolls'],
  },
  flame: {
    draw: () =>
      '<path d="M52 2C58 26 84 38 82 64C80 86 64 96 50 96C36 96 20 86 18 64C17 48 28 42 32 26C42 32 46 40 46 48C54 38 56 20 52 2Z"/>',
    words: ['a tongue that licks upward from a round base and splits into two tips', 'what burns on a candle'],
  },
  lightning: {
    draw: () => '<polygon points="58,2 18,56 44,56 34,98 82,40 54,40 68,2"/>',
    words: ['a jagged bolt that strikes down in a zigzag', 'the flash of a thunderstorm'],
  },
  cup: {
    draw: ({ ink }) =>
      `<path d="M24 8H76C76 44 66 56 56 60V78L74 86V94H26V86L44 78V60C34 56 24 44 24 8Z"/><path d="M24 16C6 14 8 40 30 44M76 16C94 14 92 40 70 44" fill="none" stroke="${ink}" stroke-width="6"/>`,
    words: ['a deep bowl on a stem and a foot, with a handle on each side', 'the vessel that a winner drinks from'],
  },
  umbrella: {
    draw: ({ ink }) =>
      `<path d="M4 54A46 46 0 0 1 96 54Q88 44 81 54Q73 44 65 54Q58 44 50 54Q42 44 35 54Q27 44 19 54Q12 44 4 54Z"/><path d="M50 50V84A8 8 0 0 0 66 84" fill="none" stroke="${ink}" stroke-width="6"/>`,
    words: [
      'a dome with a scalloped edge on a thin stick that ends in a crook',
      'what keeps a walker dry in the rain, opened',
    ],
  },
};
