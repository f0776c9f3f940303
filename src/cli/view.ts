import { spawn } from 'node:child_process';
import { type RunServer, serveRuns } from '../report/view/server.js';
import { counted } from '../util/counted.js';
import { defineCommand } from './command.js';
import { usageError } from './errors.js';
import { flag, several, vary } from './option.js';
import { OUTPUT_OPTIONS, PORT } from './options.js';
import type { Terminal } from './terminal.js';

/** `xpatch view`: shows runs in the browser, on this machine only. */
export const view = defineCommand({
  command: 'view [folders..]',
  describe: 'Show runs in the browser: a list, their reports and files',
  positionals: {
    folders: vary(several('Run folders, or folders with runs up to two levels deep', { completes: 'folder' }), {
      default: ['.'],
    }),
  },
  options: {
    port: vary(PORT, { describe: 'Port on 127.0.0.1. Defaults to a free one' }),
    open: flag('Open the list in the default browser'),
    json: vary(OUTPUT_OPTIONS.json, { describe: 'Print the address and the runs as one JSON object' }),
  },
  examples: [
    ['One run', 'view xpatch-demo-20261123-081500 --open'],
    ['All runs below this folder', 'view --port 8321'],
  ],
  run: async ({ folders, port, open, json }, terminal) => {
    if (port !== undefined && port > 65535) throw usageError('--port must be at most 65535.');
    const { signal } = terminal;
    const server = await serveRuns(folders, { port });
    try {
      if (json) terminal.printJson(describe(server));
      else terminal.print(`${summary(server)}\n`);
      if (open) openBrowser(server.url, terminal);
      await new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener('abort', () => resolve());
      });
    } finally {
      await server.close();
    }
  },
});

function describe({ url, runs }: RunServer) {
  const list = runs.map(({ id, path, state, problem, title, experiment, model, prompt, headline, started, bytes }) => {
    const about = { title, experiment, model, prompt, headline, started, bytes };
    return { url: `${url}#${id}`, path, state, problem, ...about };
  });
  return { url, runs: list };
}

function summary({ url, runs }: RunServer): string {
  const broken = runs.filter(({ state }) => state === 'broken').length;
  const count = `${counted(runs.length, 'run')}${broken > 0 ? `, ${broken} of them broken` : ''}`;
  return `${url} shows ${count}. Ctrl-C ends it.`;
}

/** The address is our own, so no foreign text reaches a command line. */
function openBrowser(url: string, terminal: Terminal): void {
  const commands: Partial<Record<NodeJS.Platform, string[]>> = { darwin: ['open'], win32: ['explorer'] };
  const [command = 'xdg-open', ...args] = commands[process.platform] ?? [];
  const child = spawn(command, [...args, url], { stdio: 'ignore', detached: true });
  child.on('error', ({ message }) => {
    terminal.say(`xpatch: could not start a browser (${message}); open the address yourself.\n`);
  });
  child.unref();
}
