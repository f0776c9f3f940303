import { isAbsolute, relative, resolve } from 'node:path';
import { PACKAGE_ROOT } from '../util/package-root.js';
import { isText, textOf } from './text-parts.js';
import type { ImageSource, PromptPart } from './types.js';

/** What a prompt was, written into results and vector files so that it can be built again. */
export interface PromptRecord {
  /** The text of all parts in order; `<image>` is where a picture was, `<tokens>` where token ids were given. */
  readonly text: string;
  /** The pictures in order: the path (of a task's picture alike on every machine, see `Task.pictures`), or the kind of in-memory source. Left out when there are none. */
  readonly images?: readonly string[];
  /** Token ids of the whole prompt as the model saw it. A negative number -n stands for n image rows. */
  readonly tokens: readonly number[];
}

/**
 * @param parts the prompt as it was given
 * @param tokens ids of the expanded prompt, -1 for every image row (`Prompt.tokens`)
 * @param names what pictures are recorded as, by path, such as `Task.pictures`. Defaults to the path as given, of a shipped picture
 *   from the package's folder
 */
export function recordPrompt(
  parts: readonly PromptPart[],
  tokens: ArrayLike<number>,
  names?: ReadonlyMap<string, string>,
): PromptRecord {
  let text = '';
  const images: string[] = [];
  for (const part of parts) {
    if (isText(part)) {
      text += textOf(part);
    } else if ('image' in part) {
      text += '<image>';
      images.push(nameOfImage(part.image, names));
    } else if ('tokens' in part && part.tokens.length) {
      text += '<tokens>';
    }
  }
  const record = { text, tokens: foldImageRows(tokens) };
  return images.length > 0 ? { ...record, images } : record;
}

function nameOfImage(image: ImageSource, names: ReadonlyMap<string, string> | undefined): string {
  if (typeof image === 'string')
    return image.startsWith('data:') ? 'data URL' : (names?.get(image) ?? nameOfFile(image));
  if (image instanceof URL) return image.protocol === 'data:' ? 'data URL' : image.href;
  return 'width' in image ? `raw image ${image.width}x${image.height}` : 'encoded image in memory';
}

/** A shipped file is named from the package's folder, alike on every machine; others as given. */
export function nameOfFile(path: string): string {
  const inside = relative(PACKAGE_ROOT, resolve(path));
  return inside.startsWith('..') || isAbsolute(inside) ? path : inside.replaceAll('\\', '/');
}

function foldImageRows(tokens: ArrayLike<number>): number[] {
  const folded: number[] = [];
  let previous = 0;
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i] as number;
    if (token < 0 && previous < 0) folded[folded.length - 1] = (folded.at(-1) as number) - 1;
    else folded.push(token);
    previous = token;
  }
  return folded;
}
