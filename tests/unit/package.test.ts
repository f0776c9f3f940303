// What is published: the tarball's files and their links.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { expect, test } from '@jest/globals';
import { changelogOf } from '../../scripts/changelog.mjs';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

const listed = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
  cwd: PACKAGE_ROOT,
  encoding: 'utf8',
  shell: process.platform === 'win32',
  stdio: ['ignore', 'pipe', 'ignore'],
});
const [{ files }] = JSON.parse(listed) as [{ files: { path: string }[] }];
const paths = new Set(files.map(({ path }) => path));
const documents = [...paths].filter((path) => path.endsWith('.md'));
const read = (path: string) => readFileSync(join(PACKAGE_ROOT, path), 'utf8');
const withoutCode = (text: string) => text.replace(/^```.*?^```/gms, '').replace(/`[^`\n]*`/g, '');

/** Anchors of a document's headings, as GitHub and npm make them. */
function anchorsOf(document: string): Set<string> {
  const headings = read(document)
    .replace(/^```.*?^```/gms, '')
    .matchAll(/^#+ +(.+)$/gm);
  return new Set(
    Array.from(headings, ([, text = '']) =>
      text
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

test('every relative link in the tarball leads to a file and a heading in it', () => {
  let count = 0;
  const dead = documents.flatMap((document) => {
    const links = withoutCode(read(document)).matchAll(
      /\]\(<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: (\S+)|\b(?:src|href)="([^"]+)"/gm,
    );
    return Array.from(links, ([, inline, defined, html]) => (inline ?? defined ?? html) as string)
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        count += 1;
        const [target = '', anchor] = decodeURIComponent(link).split('#');
        const path = target === '' ? document : posix.join(posix.dirname(document), target).replace(/\/$/, '');
        const found = paths.has(path) || [...paths].some((file) => file.startsWith(`${path}/`));
        return !found || (anchor !== undefined && path.endsWith('.md') && !anchorsOf(path).has(anchor));
      })
      .map((link) => `${document}: ${link}`);
  });
  expect(dead).toEqual([]);
  expect(count).toBeGreaterThan(60);
});

test('the tarball holds what a user needs, and nothing of the development', () => {
  for (const path of [
    'README.md',
    'LICENSE',
    'CHANGELOG.md',
    'THIRD_PARTY.md',
    'docs/install.md',
    'install/install.mjs',
  ])
    expect([...paths]).toContain(path);
  expect(
    [...paths].filter((path) => /^(src|tests|bench|runs|\.\w)|\.test\.|\.(log|tgz|tsbuildinfo)$/.test(path)),
  ).toEqual([]);
});

test('a release needs its own dated part of the changelog', () => {
  const text = '# Changelog\n\n## 1.1.0 (unreleased)\n\n- b\n\n## 1.0.0 (2026-01-31)\n\n- a\n  more\n';
  expect(changelogOf(text, '1.0.0')).toBe('- a\n  more');
  expect(() => changelogOf(text, '1.1.0')).toThrow('no date yet');
  expect(() => changelogOf(text, '1.0')).toThrow('has no part "## 1.0 (YYYY-MM-DD)"');
  expect(() => changelogOf('## 1.0.0 (2026-01-31)\n', '1.0.0')).toThrow('nothing is said');
});
