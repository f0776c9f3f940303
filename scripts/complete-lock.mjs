// Run after every change of dependencies: `npm install && node scripts/complete-lock.mjs`.
// A registry mirror may lack the packages of other platforms; npm then leaves them out of package-lock.json, and `npm ci` refuses
// the file everywhere. This adds what is missing, with the version its parent pins and the platform its name tells.
import { readFileSync, writeFileSync } from 'node:fs';

const path = new URL('../package-lock.json', import.meta.url);
const lock = JSON.parse(readFileSync(path, 'utf8'));
const OS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32'];
const CPU = ['arm64', 'arm', 'ia32', 'loong64', 'ppc64', 'riscv64', 's390x', 'x64'];
const present = new Set(Object.keys(lock.packages).map((key) => key.slice(key.lastIndexOf('node_modules/') + 13)));

let added = 0;
for (const parent of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(parent.optionalDependencies ?? {})) {
    if (present.has(name)) continue;
    const words = name.split(/[/-]/);
    const os = words.find((word) => OS.includes(word));
    const cpu = words.find((word) => CPU.includes(word));
    if (os === undefined || cpu === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
      throw new Error(
        `${name}@${version}: its platform or version cannot be told; add it to package-lock.json by hand.`,
      );
    }
    const libc = words.some((word) => word.startsWith('musl')) ? 'musl' : os === 'linux' ? 'glibc' : undefined;
    lock.packages[`node_modules/${name}`] = {
      version,
      cpu: [cpu],
      ...(parent.dev && { dev: true }),
      ...(libc && { libc: [libc] }),
      optional: true,
      os: [os],
      ...(parent.engines && { engines: parent.engines }),
    };
    present.add(name);
    added += 1;
  }
}
const [root, ...others] = Object.entries(lock.packages);
lock.packages = Object.fromEntries([root, ...others.sort(([a], [b]) => (a < b ? -1 : 1))]);
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${added} packages of other platforms added to package-lock.json`);
