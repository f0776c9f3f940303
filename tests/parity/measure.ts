// Writes docs/families.json: how far every family is from transformers, the worst of all prompts and cases.
// node --import tsx tests/parity/measure.ts [family...]; then tests/parity/table.ts makes docs/families.md of it.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { comparisons, fartherFromOne, type Measured, measure, openFamily, TIERS } from './compare.js';
import { FAMILIES, type Family, hashOf } from './families.js';

const OUT = new URL('../../docs/families.json', import.meta.url);
const asked = process.argv.slice(2);
/** Points that the family lacks, in some layers or all of them. */
async function missing(family: Family) {
  await using opened = await openFamily(family);
  const points = await opened.model.hooks();
  return Object.fromEntries(
    points.filter(({ refusals }) => refusals.length).map(({ hook, refusals }) => [hook, refusals]),
  );
}

const records = existsSync(OUT) ? JSON.parse(readFileSync(OUT, 'utf8')) : {};

const worse = (a: Measured, b: Measured): Measured => ({
  cosine: Math.min(a.cosine, b.cosine),
  magnitude: fartherFromOne(a.magnitude, b.magnitude),
  nmse: Math.max(a.nmse, b.nmse),
  absolute: Math.max(a.absolute, b.absolute),
});
const round = ({ cosine, magnitude, nmse, absolute }: Measured) => ({
  cosineFromOne: Number((1 - cosine).toPrecision(2)),
  magnitudeFromOne: Number(Math.abs(magnitude - 1).toPrecision(2)),
  nmse: Number(nmse.toPrecision(2)),
  absolute: Number(absolute.toPrecision(2)),
});

async function record(family: Family) {
  await using opened = await openFamily(family);
  const tiers: Record<string, ReturnType<typeof round>> = {};
  for (const { name, options } of TIERS) {
    await using context = await opened.model.createContext({ nCtx: 2048, ...options });
    let worst: Measured = { cosine: 1, magnitude: 1, nmse: 0, absolute: 0 };
    for (const expected of family.prompts) {
      const prompt = await opened.prompt(expected);
      for (const { actual, expected: values, width } of await comparisons(opened, context, prompt, expected)) {
        worst = worse(worst, measure(actual, values, width));
      }
    }
    tiers[name] = round(worst);
  }
  return tiers;
}

for (const family of FAMILIES) {
  if (asked.length && !asked.includes(family.name)) continue;
  const { madeWith } = family;
  records[family.name] = {
    files: hashOf(family),
    transformers: madeWith.transformers,
    missing: await missing(family),
    tiers: await record(family),
  };
  console.log(family.name, JSON.stringify(records[family.name].tiers[TIERS[0]?.name ?? '']));
}
const sorted = Object.fromEntries(FAMILIES.map(({ name }) => [name, records[name]]).filter(([, value]) => value));
writeFileSync(OUT, `${JSON.stringify(sorted, null, 2)}\n`);
