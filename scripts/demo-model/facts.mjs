// The fact tables of data/facts/ as objects, and the two rules that tie them to pictures.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

function table(file) {
  const [header, ...rows] = readFileSync(`${ROOT}/data/facts/${file}`, 'utf8').replace(/\n$/, '').split('\n');
  const columns = header.split('\t');
  return rows.map((row) => Object.fromEntries(row.split('\t').map((cell, i) => [columns[i], cell])));
}

export const facts = { country: table('countries.tsv'), animal: table('animals.tsv'), food: table('foods.tsv') };

// At 64x64 the flag of Chad is that of Romania and the flag of Monaco that of Indonesia: no picture could tell.
const SAME_FLAG = new Set(['td', 'mc']);

export function hasPicture(domain, fact) {
  return domain === 'country' ? !SAME_FLAG.has(fact.code) : fact.icons !== '';
}

export function slug(name) {
  return name
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}
