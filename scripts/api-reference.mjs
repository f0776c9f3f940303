// npm run docs:api: the reference of the four entry points as pages in build/api/, from the declarations in dist/. A link that leads
// nowhere, or a public name without a description, is an error.
import { register } from 'node:module';
import { fileURLToPath } from 'node:url';

// The compiler that builds xpatch has no interface for programs; the oldest one that the types must work with has.
const hook = `export const resolve = (name, context, next) => next(name === 'typescript' ? 'typescript-5.4' : name, context);`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
const { Application } = await import('typedoc');

const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const application = await Application.bootstrap({
  name: 'xpatch',
  entryPoints: ['index', 'experiment', 'report', 'convert'].map((name) => path(`dist/${name}.d.ts`)),
  tsconfig: path('scripts/api-reference.json'),
  readme: path('scripts/api-reference.md'),
  excludeInternal: true,
  excludePrivate: true,
  disableSources: true,
  githubPages: false,
  validation: { notExported: false, invalidLink: true, invalidPath: true, notDocumented: true },
  requiredToBeDocumented: ['Class', 'Interface', 'TypeAlias', 'Function', 'Variable'],
});
const project = await application.convert();
if (project === undefined) process.exit(1);
// As a program imports them, not as their files are called.
for (const module of project.children ?? []) module.name = module.name === 'index' ? 'xpatch' : `xpatch/${module.name}`;
application.validate(project);
await application.generateDocs(project, path('build/api'));
if (application.logger.hasErrors() || application.logger.hasWarnings()) process.exitCode = 1;
