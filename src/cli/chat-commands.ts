import { homedir } from 'node:os';
import type { ChatSession } from '../chat/chat-session.js';
import type { Intervention, Steps } from '../hooks/types.js';
import { readImage, readPicture } from '../images/image.js';
import { plural } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import type { DirectionNumbering } from '../vectors/vector-origin.js';
import { usageError } from './errors.js';
import { parseLayers } from './options.js';
import { type LoadedVector, layersFor, loadVector, requireFit, vectorRecord } from './vector-file.js';

export const CHAT_HELP = `Commands. Any other line is a message; begin it with // to send one that starts with a slash.
  /image PATH                                put a picture in front of the next message; repeat for more
  /patch VECTOR --layers LIST [--op replace|add] [--strength S] [--vector-position N]
                                             patch the last prompt token of each following turn
  /steer VECTOR --layers LIST [--strength S] add a direction there, and to each token of the answers
  /patch off                                 stop patching; /patch alone says what is patched
  /system TEXT                               set the system message; without text, remove it
  /clear                                     forget the conversation; system message and patch stay
  /help                                      this list
  /exit                                      end (as Ctrl-D); Ctrl-C stops an answer
`;

/** What `/patch` takes, and the options of the same names. */
export interface PatchRequest {
  file: string;
  layers: 'all' | readonly number[];
  op?: 'replace' | 'add';
  strength?: number;
  /** Defaults to `prompt`: only the last token of the prompt. */
  steps?: Steps;
  vectorPosition?: number;
  numbering?: DirectionNumbering;
}

/** What chat commands change. */
export class ChatState {
  /** Pictures for the next message. */
  pictures: { name: string; data: Uint8Array }[] = [];
  /** The patch, for results. */
  patch: { vector: ReturnType<typeof vectorRecord>; vectorModel: 'same' | 'foreign' } | undefined;

  constructor(private readonly session: ChatSession) {}

  /**
   * Runs the command on a line.
   *
   * @returns What to tell the user; undefined to end.
   */
  async command(line: string): Promise<string | undefined> {
    const [, name = '', rest = ''] = /^\/(\S*)\s*(.*?)\s*$/s.exec(line) ?? [];
    switch (name) {
      case 'image':
        return this.addPicture(rest);
      case 'patch':
        return this.changePatch(rest);
      case 'steer':
        return rest === '' || rest === 'off'
          ? this.changePatch(rest)
          : this.setPatch({ op: 'add', ...parsePatch('/steer', rest), steps: 'all' });
      case 'system':
        this.session.system = rest === '' ? undefined : rest;
        return rest === '' ? 'no system message' : 'system message set';
      case 'clear':
        this.session.clear();
        this.pictures = [];
        return 'conversation cleared';
      case 'help':
        return CHAT_HELP;
      case 'exit':
        return undefined;
      default:
        throw usageError(`There is no command /${name}. /help lists them; to begin a message with /, type //.`);
    }
  }

  /** Reads the picture at once: errors appear here, and the file may change afterwards. */
  async addPicture(text: string): Promise<string> {
    const path = unquote(text).replace(/^~(?=\/)/, homedir());
    if (path === '') throw usageError('/image needs the path of a picture.');
    const { model } = this.session.context;
    if (!model.hasVision) {
      const message =
        'The model was loaded without a picture encoder. Restart the chat with its mmproj GGUF (--mmproj).';
      throw new XpatchError('IMAGE_UNSUPPORTED', message);
    }
    const data = await readPicture(path);
    const { width, height } = await readImage(data);
    this.pictures.push({ name: path, data });
    return `${path} (${width} x ${height}) goes with the next message`;
  }

  async setPatch(request: PatchRequest): Promise<string> {
    const { file, layers, op, strength, steps, vectorPosition, numbering } = request;
    const loaded: LoadedVector = await loadVector(file, { position: vectorPosition, numbering });
    const { context } = this.session;
    const vectorModel = requireFit(loaded, context.model.identity);
    const { positions, ...edit } = loaded.vector.at(layersFor(loaded, layers), { op, strength, steps });
    context.requireHook(loaded.vector.info.hook);
    this.session.patch = edit;
    this.patch = { vector: vectorRecord(loaded), vectorModel };
    return [this.describePatch(), ...loaded.notes].join('\n');
  }

  private async changePatch(text: string): Promise<string> {
    if (text === '') return this.describePatch();
    if (text !== 'off') return this.setPatch(parsePatch('/patch', text));
    this.session.patch = undefined;
    this.patch = undefined;
    return this.describePatch();
  }

  private describePatch(): string {
    const { patch } = this.session;
    if (!patch || !this.patch) return 'nothing is patched';
    const how = patch.op === 'add' ? 'added to' : 'put in place of';
    const last = 'the last prompt token of each following turn';
    const when = { prompt: `at ${last}`, all: `from ${last} on` }[String(patch.steps)] ?? 'in each following answer';
    return `${this.patch.vector.file} is ${how} ${layersText(patch.layers)} ${when}`;
  }
}

/** `VECTOR --layers LIST [--op replace|add] [--strength S] [--vector-position N]`, in any order. */
function parsePatch(command: string, text: string): PatchRequest {
  const words = Array.from(text.matchAll(/"[^"]*"|'[^']*'|--[\w-]+(?==)|(?<=^|\s)\S+|(?<==)\S+/g), ([word]) => word);
  const request: Partial<PatchRequest> = {};
  const whole = (option: string, value = '') => {
    if (/^\d{1,6}$/.test(value)) return Number(value);
    throw usageError(`${command}: ${option} must be a whole number from 0.`);
  };
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === '--layers' || word === '--layer')
      request.layers = parseLayers(words[++i] ?? '', `${command}: --layers`);
    else if (word === '--vector-position') request.vectorPosition = whole(word, words[++i]);
    else if (word === '--strength') {
      request.strength = Number(words[++i] || Number.NaN);
      if (!Number.isFinite(request.strength)) throw usageError(`${command}: --strength must be a number.`);
    } else if (word === '--op') {
      const op = words[++i];
      if (op !== 'replace' && op !== 'add') throw usageError(`${command}: --op must be replace or add.`);
      request.op = op;
    } else if (word.startsWith('--') || request.file !== undefined) {
      throw usageError(`${command} does not understand ${JSON.stringify(word)}. /help shows its syntax.`);
    } else request.file = unquote(word);
  }
  const { file, layers } = request;
  if (file === undefined || layers === undefined) throw usageError(`${command} needs a vector file and --layers.`);
  return { ...request, file, layers };
}

function layersText(layers: Intervention['layers']): string {
  const list = [layers].flat();
  return `${plural(list.length, 'layer')} ${list.join(', ')}`;
}

function unquote(text: string): string {
  return /^(["'])(.*)\1$/s.exec(text)?.[2] ?? text;
}
