import { expect, test } from '@jest/globals';
import { runChild } from '../../src/util/child.js';

const program = (text: string) => ['-e', text];

test('what a process says, reads and sends comes back, and how it ended', async () => {
  const echo = program("process.stdin.pipe(process.stdout); process.stderr.write('said'); process.exitCode = 3");
  const { how, code, stdout, log, late } = await runChild(echo, { input: Buffer.from('given') });
  expect([how, code, stdout.toString(), log, late]).toEqual(['ended with code 3', 3, 'given', 'said', false]);

  const messages: unknown[] = [];
  const answer = program("process.on('message', (job) => process.send({ ...job, done: true }, () => process.exit()))");
  let pid = 0;
  const ended = await runChild(answer, {
    job: { bytes: new Uint8Array([1, 2]) },
    onMessage: (message) => messages.push(message),
    onStart: (id) => {
      pid = id;
    },
  });
  expect(messages).toEqual([{ bytes: new Uint8Array([1, 2]), done: true }]);
  expect([ended.how, pid > 0]).toEqual(['ended with code 0', true]);
});

test('a process that crashes, takes too long or is aborted is told apart', async () => {
  expect((await runChild(program('process.abort()'))).how).toBe('was ended by SIGABRT');
  const endless = program('setInterval(() => {}, 1000)');
  expect(await runChild(endless, { maxSeconds: 0.2 })).toMatchObject({ how: 'was ended by SIGKILL', late: true });
  expect(await runChild(endless, { signal: AbortSignal.abort() })).toMatchObject({ code: undefined, late: false });
  const later = new AbortController();
  setTimeout(() => later.abort(), 200);
  expect(await runChild(endless, { signal: later.signal })).toMatchObject({ how: 'was ended by SIGKILL' });
});

test('on abort a process is asked first, and killed when it does not listen', async () => {
  const stop = { message: 'stop', graceMs: 300 };
  const run = (text: string) => {
    const controller = new AbortController();
    const onMessage = () => controller.abort();
    return runChild(program(`process.send('ready'); ${text}`), { signal: controller.signal, stop, onMessage });
  };
  expect(await run("process.on('message', (text) => process.exit(text === 'stop' ? 7 : 1))")).toMatchObject({
    code: 7,
  });
  expect(await run("process.on('message', () => {})")).toMatchObject({ how: 'was ended by SIGKILL', late: false });
});

test('many at once leave one listener on the end of this process, and none when they have ended', async () => {
  const before = process.listenerCount('exit');
  const all = Promise.all(Array.from({ length: 12 }, () => runChild(program(''))));
  expect(process.listenerCount('exit')).toBe(before + 1);
  expect((await all).map(({ code }) => code)).toEqual(Array(12).fill(0));
  expect(process.listenerCount('exit')).toBe(before);
});
