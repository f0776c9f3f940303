import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { expect, test } from '@jest/globals';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

const SRC = join(PACKAGE_ROOT, 'src');

/** Modules that a file of src imports, types too, as paths within src. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8');
  const found = text.matchAll(/\bfrom '(\.[^']+)'|\bimport\('(\.[^']+)'\)/g);
  const paths = Array.from(found, ([, from, dynamic]) => (from ?? dynamic) as string);
  return paths.map((path) => posix.join(posix.dirname(file), path).replace(/\.js$/, '.ts'));
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.replaceAll('\\', '/'));
const imports = new Map(files.map((file) => [file, importsOf(file)]));

/** The folders of src from the bottom up, as CONTRIBUTING.md draws them. */
const drawing = /^ {4}util →[^\n]*\n(?: {6}→[^\n]*\n)+/m.exec(
  readFileSync(join(PACKAGE_ROOT, 'CONTRIBUTING.md'), 'utf8'),
)?.[0];
const folders = (drawing ?? '').split('→').map((name) => name.trim());

test('every folder of src stands in the drawing of CONTRIBUTING.md', () => {
  const present = new Set(files.filter((file) => file.includes('/')).map((file) => file.split('/')[0]));
  expect([...present].sort()).toEqual([...folders].sort());
});

test('a folder imports only from those below it', () => {
  const height = (file: string) => folders.indexOf(file.split('/')[0] as string);
  const upwards = [...imports].flatMap(([file, targets]) =>
    targets.filter((target) => file.includes('/') && height(target) > height(file)).map((to) => `${file} -> ${to}`),
  );
  expect(upwards).toEqual([]);
});

test('files do not import each other in circles, but for a model and its contexts', () => {
  const allowed = new Set(['model/model.ts', 'model/context.ts', 'model/context-options.ts', 'model/generate.ts']);
  const state = new Map<string, 'open' | 'done'>();
  const circles: string[] = [];
  const visit = (file: string, path: readonly string[]) => {
    if (state.get(file) === 'done') return;
    if (state.get(file) === 'open') {
      const circle = path.slice(path.indexOf(file));
      if (!circle.every((member) => allowed.has(member))) circles.push([...circle, file].join(' -> '));
      return;
    }
    state.set(file, 'open');
    for (const target of imports.get(file) ?? []) visit(target, [...path, file]);
    state.set(file, 'done');
  };
  for (const file of files) visit(file, []);
  expect(circles).toEqual([]);
});
