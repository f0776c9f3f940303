import type { Block } from '../report.js';
import { tableToCsv, tableToLatex, tableToMarkdown } from '../tables.js';
import { blockBody } from './blocks.js';
import { lensToHtml } from './lens.js';
import { pack } from './lens-data.js';
import { json } from './text.js';

/** What a page holds of a block. */
export interface PageBlock {
  readonly block: Block;
  body: string;
  /** A table ready to be copied, by format. */
  copies?: Readonly<Record<string, string>> | undefined;
  /** The map that stands for a table, packed. */
  map?: string | undefined;
  /** What the page has no room for. */
  readonly leftOut: string[];
  /** That has it. */
  readonly file: string;
}

/** @param whole The same block with all notes, for the copies of its table. */
export async function pageBlock(block: Block, whole: Block): Promise<PageBlock> {
  const { kind, name } = block;
  return {
    block,
    body: kind === 'lens' ? await lensToHtml(block.lens) : await blockBody(block),
    copies: whole.kind === 'table' ? copiesOf(whole) : undefined,
    map: kind === 'table' && block.map ? await pack(block.map) : undefined,
    leftOut: [],
    file: kind === 'table' || kind === 'examples' ? `tables/${name}.csv` : `figures/${name}.svg`,
  };
}

function copiesOf({ table }: Extract<Block, { kind: 'table' }>) {
  return { Markdown: tableToMarkdown(table), CSV: tableToCsv(table), LaTeX: tableToLatex(table) };
}

/** In this order: first what the page has twice, then what a reader can do with a table, then what only files have. */
const CUTS = [withoutPhone, withoutCopies, withoutBody, withoutMap];

/**
 * Leaves out of the blocks of a page what has no room, the largest first. The tables and pictures of a lens stay.
 * @returns bytes that they take, at most `room` if that can be
 */
export async function fitBlocks(blocks: readonly PageBlock[], room: number): Promise<number> {
  const sizes = new Map(blocks.map((block) => [block, sizeOf(block)]));
  const total = () => [...sizes.values()].reduce((a, b) => a + b, 0);
  for (const cut of CUTS) {
    for (const [block] of [...sizes].sort(([, a], [, b]) => b - a)) {
      if (total() <= room) return total();
      await cut(block);
      sizes.set(block, sizeOf(block));
    }
  }
  return total();
}

function sizeOf({ body, copies, map = '' }: PageBlock): number {
  return Buffer.byteLength(body) + map.length + (copies ? Buffer.byteLength(json(copies)) : 0);
}

async function withoutPhone(part: PageBlock): Promise<void> {
  const { kind } = part.block;
  if (kind === 'lens' || kind === 'table' || kind === 'examples') return;
  part.body = await blockBody(part.block, false);
  part.leftOut.push('the drawing for phones');
}

function withoutCopies(part: PageBlock): void {
  if (part.copies === undefined) return;
  part.copies = {};
  part.leftOut.push('the texts to copy');
}

/** The grid of a map stays. */
function withoutBody(part: PageBlock): void {
  const { kind } = part.block;
  if (kind === 'lens') return;
  part.body = '<div class="wide"></div>';
  part.copies = undefined;
  part.leftOut.splice(
    0,
    part.leftOut.length,
    kind === 'table' ? 'the table' : kind === 'examples' ? 'the examples' : 'the figure',
  );
}

function withoutMap(part: PageBlock): void {
  if (part.map === undefined) return;
  part.map = undefined;
  part.leftOut.push('the grid');
}
