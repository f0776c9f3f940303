import type { ChatTurn } from '../chat/chat-session.js';
import { XpatchError } from '../util/errors.js';
import { requireText } from '../util/lines.js';
import { readWhole } from '../util/read-file.js';
import { whatAre } from '../util/what-is.js';
import { CHAT_HELP, ChatState } from './chat-commands.js';
import { ChatInput } from './chat-input.js';
import { describeModel, requireNotAborted, type Session, withSession } from './common.js';
import { usageError } from './errors.js';
import { dashed } from './option.js';
import { theOne, unescapeText } from './options.js';
import type { RunArguments } from './run-options.js';
import type { Terminal } from './terminal.js';

/** Templates are a few thousand characters long. */
const TEMPLATE = { what: 'the chat template', maxBytes: 1 << 20, pipe: true } as const;

/** `xpatch run --chat`: a conversation, typed or through a pipe. */
export async function chat(args: RunArguments, terminal: Terminal): Promise<void> {
  const template = args.chatTemplate === undefined ? undefined : await readTemplate(args.chatTemplate);
  await withSession(args, terminal, async (opened) => {
    const { ChatSession } = await import('../chat/chat-session.js');
    const { temperature, seed, maxTokens } = args;
    const typed = (text: string) => (args.escape ? unescapeText(text) : text);
    const stop = args.stop?.map(typed);
    const system = args.system === undefined ? undefined : typed(args.system);
    const session = new ChatSession(opened.context, { template, system, maxTokens, temperature, seed, stop });
    const state = new ChatState(session);
    const { layers = 'all', op, strength, vectorPosition, numbering } = args;
    const steps = args.everyStep ? 'all' : args.steps;
    const file = theOne('--vector', args.vector);
    if (file !== undefined)
      opened.progress.note(await state.setPatch({ file, layers, op, strength, steps, vectorPosition, numbering }));
    for (const path of args.image ?? []) await state.addPicture(path);
    await talk(args, opened, { session, state });
  });
}

async function talk(
  args: RunArguments,
  { model, terminal, signal, progress, track }: Session,
  { session, state }: { session: import('../chat/chat-session.js').ChatSession; state: ChatState },
): Promise<void> {
  progress.done(); // nothing may be drawn over what the user types
  const typed = Boolean(terminal.io.stdin.isTTY && terminal.out.isTTY && !args.json);
  const input = new ChatInput(terminal, typed);
  const end = () => input.close();
  signal.addEventListener('abort', end);
  if (typed) progress.note(`talking to ${describeModel(model.identity)}; /help lists commands, Ctrl-D ends`);
  let turns = 0;

  /** False to end. */
  const handle = async (line: string): Promise<boolean> => {
    if (line.startsWith('/') && !line.startsWith('//')) {
      const said = await state.command(line);
      if (said === CHAT_HELP) terminal.say(said);
      else if (said !== undefined) progress.note(said);
      return said !== undefined;
    }
    const text = line.startsWith('//') ? line.slice(1) : line;
    const { pictures } = state;
    let streamed = '';
    progress.update('reading the message');
    const turn = await input
      .answering((stop) =>
        session.send([...pictures.map(({ data }) => ({ image: data })), text], {
          signal: AbortSignal.any([signal, stop]),
          onText: (piece) => {
            progress.done();
            streamed += piece;
            if (!args.json) terminal.print(piece);
          },
          ...(args.json && { onProgress: track('answering') }),
        }),
      )
      .finally(() => progress.done());
    state.pictures = [];
    turns++;
    if (args.json)
      printTurn(terminal, args, turn, {
        turns,
        pictures: pictures.map(({ name }) => name),
        state,
        model: model.identity,
      });
    else if (!streamed.endsWith('\n')) terminal.print('\n');
    requireNotAborted(signal);
    for (const note of notes(turn)) progress.note(note);
    return true;
  };

  try {
    for (let line = await input.next(); line !== undefined; line = await input.next()) {
      if (line.trim() === '') continue;
      try {
        if (!(await handle(line))) break;
      } catch (error) {
        if (!typed || signal.aborted) throw error; // nobody can correct it
        const stopped = error instanceof XpatchError && error.code === 'ABORTED';
        if (stopped) progress.note('stopped before the answer began; the message was dropped from the conversation');
        else terminal.report(error, { json: false, stack: false });
      }
    }
    requireNotAborted(signal);
  } finally {
    signal.removeEventListener('abort', end);
    input.close();
  }
}

function printTurn(
  terminal: Terminal,
  args: RunArguments,
  { text, tokens, finish, positions, reused, room, interventions }: ChatTurn,
  more: { turns: number; pictures: string[]; state: ChatState; model: Session['model']['identity'] },
): void {
  const { temperature, seed } = args;
  terminal.printJson({
    turn: more.turns,
    text,
    tokens,
    finish,
    positions,
    reused,
    room,
    ...(more.pictures.length > 0 && { images: more.pictures }),
    ...(more.state.patch && { patch: { ...more.state.patch, ...interventions[0] } }),
    ...(temperature > 0 ? { temperature, seed } : { temperature }),
    model: more.model,
  });
}

/** What to say about how an answer ended. */
function notes({ finish, room }: ChatTurn): string[] {
  if (finish === 'aborted') return ['stopped; the conversation continues from here'];
  if (finish !== 'length') return [];
  if (room > 0) return ['the answer was cut at the maximum length (-n)'];
  return ['the context is full: /clear starts over, --n-ctx makes it larger'];
}

async function readTemplate(path: string): Promise<string> {
  const bytes = await readWhole(path, TEMPLATE);
  const other = whatAre(bytes, 'text');
  if (other === undefined) return requireText(bytes, path);
  throw new XpatchError('CHAT_TEMPLATE_INVALID', `${path} is not a chat template: ${other}.`);
}

/** Refuses options that do not belong to a chat. */
export function checkChatArguments(args: RunArguments): void {
  const strange = [
    'prompt',
    'promptFile',
    'tokens',
    'positions',
    'at',
    'hook',
    'heads',
    'knockOut',
    'saveLogits',
  ] as const;
  const other = strange.find((name) => args[name] !== undefined);
  if (other !== undefined)
    throw usageError(`--${dashed(other)} does not work with --chat, which reads messages from stdin.`);
  const flag = args.literal ? '--literal' : args.bos ? undefined : '--no-bos';
  if (flag)
    throw usageError(
      `${flag} does not work with --chat: the chat template writes BOS and control tokens. Leave it out.`,
    );
  if (args.maxTokens === 0) throw usageError('-n 0 leaves no room for an answer.');
}
