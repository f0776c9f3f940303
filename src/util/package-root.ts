// The folder of the installed package (with package.json, data/ and models/), from the sources as from the build, and its version.
export { PACKAGE_ROOT, packageVersion } from '../../install/layout.mjs';
