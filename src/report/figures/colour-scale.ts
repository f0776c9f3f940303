/**
 * Ground of each step, from the least to the most: pale yellow over teal to indigo, as viridis runs. Interpolated in OKLab, where
 * lightness falls evenly, so that the order can be read in grey and with any colour vision. The little end is the one near the
 * ground of the page: pale on a light one, dark on a dark one.
 */
const LIGHT = [
  'f8f8ec f2f5e5 ebf2dd e5efd5 dfedce d9eac6 d2e7bf c6e4bc b9e0bc abdcbb 9dd8ba 8ed4b9 7fcfb8 72c9b8 68c1b8 5eb9b9',
  '54b2b9 4aaab9 3fa2b9 3899b8 3790b5 3687b1 357eae 3574aa 346ba6 3362a2 345b9d 355499 364c94 36458f 363d8a 353685',
];
const DARK = [
  '1c1f29 202333 23283d 262d47 2a3152 2d365d 303b68 324270 334a79 335281 325a8a 326292 306b9b 3073a1 317da4 3286a7',
  '338faa 3498ae 34a1b1 3aaab2 47b2b1 53bab0 5fc1ae 6ac9ac 75d1aa 82d8a8 97dca8 aae1a7 bde5a6 cfe9a4 e0eda3 f1f1a1',
];
/** The first step whose ink is the other one: white on a light page, black on a dark one. */
const TURNS = { light: 23, dark: 14 };

/** The rules `.q0` to `.q31`: ground and ink of a cell, and `fill` for shapes, for the light and the dark scheme. A browser without `light-dark` has the light one. */
export function scaleRules(): string {
  return scaleColours()
    .map(({ light, dark }, i) => {
      const rule = (ground: string, ink: string) => `background:${ground};fill:${ground};color:${ink}`;
      const both = rule(`light-dark(${light.ground},${dark.ground})`, `light-dark(${light.ink},${dark.ink})`);
      return `.q${i}{${rule(light.ground, light.ink)};${both}}`;
    })
    .join('\n');
}

/** Ground and ink of every step, `#rrggbb`. The ink is black or white, whichever has more contrast. */
export function scaleColours() {
  const [light, dark] = [LIGHT, DARK].map((lines) => lines.join(' ').split(' ')) as [string[], string[]];
  return light.map((ground, i) => ({
    light: { ground: `#${ground}`, ink: i < TURNS.light ? '#000000' : '#ffffff' },
    dark: { ground: `#${dark[i]}`, ink: i < TURNS.dark ? '#ffffff' : '#000000' },
  }));
}
