// npm run changelog -- v1.2.3: that version's part of CHANGELOG.md, for its release. Fails unless the package has this version and the
// changelog says when it was released.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The part below `## <version> (<date>)`; throws Error when there is none, or it is empty. */
export function changelogOf(text, version) {
  for (const part of text.split(/^## /m).slice(1)) {
    const [heading, ...lines] = part.split('\n');
    const [, name, date] = /^(\S+) \((.+)\)$/.exec(heading.trim()) ?? [];
    if (name !== version) continue;
    if (!/^\d{4}-\d{2}-\d{2}$/.test(date))
      throw new Error(`CHANGELOG.md: ${version} has no date yet, but "(${date})".`);
    const body = lines.join('\n').trim();
    if (body === '') throw new Error(`CHANGELOG.md: nothing is said about ${version}.`);
    return body;
  }
  throw new Error(`CHANGELOG.md has no part "## ${version} (YYYY-MM-DD)".`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const read = (file) => readFileSync(new URL(`../${file}`, import.meta.url), 'utf8');
  const version = (process.argv[2] ?? '').replace(/^v/, '');
  const packaged = JSON.parse(read('package.json')).version;
  try {
    if (version !== packaged) throw new Error(`The tag says "${version}", package.json ${packaged}.`);
    console.log(changelogOf(read('CHANGELOG.md'), version));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
