// Puts the script and the styles of a report's page, each one file, to where src/report/page/page.ts finds them: dist/report/page/.
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

export default async function bundleClient() {
  await build({
    absWorkingDir: root,
    entryPoints: { client: 'src/report/page/client/main.ts' },
    outdir: 'dist/report/page',
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    charset: 'ascii',
    logLevel: 'warning',
  });
  await build({
    absWorkingDir: root,
    entryPoints: { client: 'src/report/page/client/page.css' },
    outdir: 'dist/report/page',
    minify: true,
    logLevel: 'warning',
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundleClient();
