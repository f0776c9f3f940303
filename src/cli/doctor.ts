import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findLlama, type Llama, PACKAGE_ROOT, packageVersion } from '../../install/layout.mjs';
import type { Device } from '../native/addon.js';
import { fastestWeights } from '../studies/type-speeds.js';
import { runChild } from '../util/child.js';
import { defineCommand } from './command.js';
import { fetchEvents, requireNotAborted } from './common.js';
import type { ChildMessage, NativeReport } from './doctor-child.js';
import { EXIT } from './errors.js';
import { fetchModel } from './fetch-model.js';
import { vary } from './option.js';
import { DEVICE, MMPROJ, MODEL, OUTPUT_OPTIONS } from './options.js';
import type { ProgressLine } from './progress.js';
import type { Check, SelfTestOptions } from './self-test.js';

interface Diagnosis {
  ok: boolean;
  versions: { xpatch: string; llamaCpp: string; nodeLlamaCpp: string; node: string };
  platform: string;
  addon?: Omit<NativeReport, 'devices' | 'failedBackends'>;
  devices: Device[];
  failedBackends: { path: string; reason: string; wayOut: string }[];
  checks: Check[];
  /** What would make it faster. */
  hint?: string;
  /** Which types of weights are fastest here, if that was measured. */
  weights: string;
}

/** `xpatch doctor`: whether the installation works, and what to do if it does not. */
export const doctor = defineCommand({
  command: 'doctor',
  describe: 'Check the installation: versions, devices, and a self-test',
  options: {
    model: vary(MODEL, { describe: 'Model of the self-test', default: 'demo' }),
    mmproj: vary(MMPROJ, { describe: 'Its picture encoder. Defaults to that of a shipped model' }),
    device: DEVICE,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    ['Check everything', 'doctor'],
    ['The same with the self-test on one device', 'doctor --device Vulkan0'],
    ['For a bug report', 'doctor --json'],
  ],
  run: async ({ model, mmproj, device, json, quiet }, terminal) => {
    const progress = terminal.progress({ json, quiet });
    // The child checks a shipped model: doctor has to say what is wrong with it.
    const files =
      model === 'demo' ? { model, mmproj } : await fetchModel(model, mmproj, fetchEvents(terminal, progress));
    const diagnosis = await diagnose({ ...files, device }, progress, terminal.signal);
    if (json) terminal.printJson(diagnosis);
    else terminal.print(describe(diagnosis));
    if (!diagnosis.ok) terminal.exitCode = EXIT.failed;
  },
});

async function diagnose(options: SelfTestOptions, progress: ProgressLine, signal: AbortSignal): Promise<Diagnosis> {
  const llama = findLlama(PACKAGE_ROOT);
  const diagnosis: Diagnosis = {
    ok: false,
    versions: {
      xpatch: packageVersion(PACKAGE_ROOT),
      llamaCpp: llama.tag,
      nodeLlamaCpp: llama.version,
      node: process.version,
    },
    platform: `${process.platform}-${process.arch}`,
    devices: [],
    failedBackends: [],
    checks: [],
    hint: missingBackend(llama),
    weights: await fastestWeights(),
  };
  const { checks } = diagnosis;
  let stage = 'start';
  let done = false;
  const { how, log } = await runChild<ChildMessage>(
    [fileURLToPath(new URL('./doctor-child.js', import.meta.url)), JSON.stringify(options)],
    {
      signal,
      onMessage: (message) => {
        if (message.type === 'stage') {
          stage = message.stage;
          progress.update(`checking whether ${stage}`);
        } else if (message.type === 'native') {
          const { devices, failedBackends, ...addon } = message.report;
          Object.assign(diagnosis, { addon, devices });
          diagnosis.failedBackends = failedBackends.map((failed) => ({ ...failed, wayOut: wayOut(failed.path) }));
        } else if (message.type === 'check') {
          checks.push(message.check);
        } else {
          done = true;
        }
      },
    },
  );
  progress.done();
  requireNotAborted(signal);
  if (!done) {
    const wayOut = 'Try --device cpu, or `XPATCH_LLAMA=source npx xpatch build` to compile for this machine.';
    const detail = `its process ${how}. ${log}${log ? '\n' : ''}${wayOut}`;
    checks.push({ name: stage, ok: false, detail });
  }
  diagnosis.ok = checks.every((check) => check.ok);
  return diagnosis;
}

function wayOut(path: string): string {
  if (/cuda/i.test(basename(path))) {
    return 'Normal without an NVIDIA GPU. With one, install its driver and the CUDA runtime libraries, then run doctor again.';
  }
  if (/vulkan/i.test(basename(path))) {
    return 'Normal without a GPU. With one, install its Vulkan driver and the Vulkan loader (Debian: mesa-vulkan-drivers, libvulkan1).';
  }
  return 'Run `npm ci` to restore it, or compile it in with `XPATCH_LLAMA=source npx xpatch build`.';
}

/** What a GPU of this machine lacks. */
function missingBackend({ gpuPackages, gpuBackends, version }: Llama): string | undefined {
  const [cuda] = gpuPackages;
  if (cuda === undefined || gpuBackends.some(({ gpu }) => gpu === 'cuda') || !existsSync('/proc/driver/nvidia/version'))
    return undefined;
  return `There is an NVIDIA driver but no backend for it. Run npm install --no-save ${cuda}@${version} (with CUDA 12: ${cuda}-ext@${version})`;
}

function describe(diagnosis: Diagnosis): string {
  const { ok, versions, platform, addon, devices, failedBackends, checks, hint, weights } = diagnosis;
  const { xpatch, llamaCpp, nodeLlamaCpp, node } = versions;
  const lines = [`xpatch ${xpatch}, llama.cpp ${llamaCpp} (node-llama-cpp ${nodeLlamaCpp}), node ${node}, ${platform}`];
  if (addon) {
    const { mode, compiler, date, llamaTag } = addon.build;
    const origin = addon.prebuilt ? 'came with the package' : `built here on ${date}`;
    lines.push(`addon: ${mode}, llama.cpp ${llamaTag}, ${compiler}, ${origin}`, `  ${addon.path}`);
    if (addon.stale) lines.push(`  stale: ${addon.stale} Run \`npx xpatch build\`.`);
  }
  if (devices.length > 0) lines.push('devices:');
  for (const { name, description, backend, type, memoryFree, memoryTotal } of devices) {
    lines.push(
      `  ${name}: ${description} (${type}, backend ${backend}, ${gib(memoryFree)} of ${gib(memoryTotal)} GiB free)`,
    );
  }
  if (failedBackends.length > 0) lines.push('backends that could not be loaded:');
  for (const { path, reason, wayOut } of failedBackends) lines.push(`  ${path}`, `    ${reason}`, `    ${wayOut}`);
  if (hint !== undefined) lines.push(hint);
  lines.push(weights, 'checks:');
  for (const { name, ok, detail } of checks) lines.push(`  ${ok ? 'ok    ' : 'FAILED'} ${name}`, indent(detail));
  lines.push(ok ? 'Everything works.' : 'Some checks failed: see above.');
  return `${lines.join('\n')}\n`;
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

function indent(text: string): string {
  return text.replace(/^/gm, '         ');
}
