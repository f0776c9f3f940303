import { XpatchError, type XpatchErrorCode } from '../util/errors.js';
import type { Addon, Device } from './addon.js';
import { type LoadedAddon, loadAddon } from './load.js';

/** The addon with its backends loaded, and how it came to be. */
export interface Native extends Omit<LoadedAddon, 'addon' | 'backends'> {
  addon: Addon;
  /** Backend libraries that are installed but could not be loaded, with the loader's own words. */
  failedBackends: { path: string; reason: string }[];
}

let loaded: Native | undefined;

/**
 * Loads the addon once a process, and with it every compute backend of this machine.
 *
 * @throws XpatchError ADDON_LOAD, with what was looked for, why it failed and what to run.
 */
export function native(): Native {
  if (!loaded) {
    const { backends, ...found } = loadAddon();
    const addon = found.addon as Addon;
    const failedBackends: Native['failedBackends'] = [];
    const gpus = new Set<string>();
    for (const backend of backends) {
      if (backend.kind === 'folder') {
        addon.loadBackends(backend.path);
      } else if (!gpus.has(backend.gpu)) {
        // A second library of the same kind would register the same devices twice.
        const reason = addon.loadBackendLibrary(backend.path);
        if (reason) failedBackends.push({ path: backend.path, reason });
        else gpus.add(backend.gpu);
      }
    }
    if (addon.listDevices().length === 0) {
      throw new XpatchError(
        'ADDON_LOAD',
        'The addon was loaded but no compute backend was found, not even the CPU. Run `npm ci` to restore the packages, ' +
          'or `XPATCH_LLAMA=source npx xpatch build` to compile them in.',
      );
    }
    loaded = { ...found, addon, failedBackends };
  }
  return loaded;
}

/**
 * The compute devices of this machine, CPU included.
 *
 * @example
 * ```ts
 * for (const { name, memoryFree } of listDevices()) console.log(name, memoryFree);
 * ```
 */
export function listDevices(): Device[] {
  return native().addon.listDevices();
}

/** Turns an error of the addon, which carries `code`, into an XpatchError that also says what was tried. */
export function nativeError(error: unknown, what: string): XpatchError {
  if (error instanceof XpatchError) return error;
  const { code, message } = error as { code?: XpatchErrorCode; message?: string };
  return new XpatchError(code ?? 'NATIVE_FAILURE', `${what}: ${message ?? error}`, { cause: error });
}
