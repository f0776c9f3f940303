import type { Lens } from '../lens/logit-lens.js';
import type { PatchGrid, RgbImage } from '../prompt/types.js';
import type { Table } from '../stats/tables.js';
import type { Figure } from './figures/figure.js';

/**
 * Everything that a command has to show, as data. One writer makes the page, the figures and the tables of a run folder of
 * it (`writeReport`); one page shows it (`reportToHtml`).
 */
export interface Report {
  readonly title: string;
  /** Paragraphs under the title. */
  readonly introduction: readonly string[];
  /** What has to be said with the results, once, after the blocks. Defaults to nothing. */
  readonly caveats?: readonly string[];
  /** The result in a few words, for lists of runs. Defaults to none. */
  readonly headline?: string | undefined;
  /** In the order of the page. */
  readonly blocks: readonly Block[];
  /** What is needed to repeat the run: command, versions, hashes, seeds. */
  readonly provenance: Readonly<Record<string, string | number>>;
}

/** `name` is the stem of the files that a block becomes, unique in its report; `heading` is shown above it in the page. */
interface Named {
  readonly name: string;
  readonly heading: string;
  /** Sentences under the heading. */
  readonly caption?: string;
  /** Folded in the page, which shows the others first. Defaults to false. */
  readonly detail?: boolean;
}

/** One part of a report: a table, a figure, a lens or examples. */
export type Block =
  | (Named & { readonly kind: 'table'; readonly table: Table | TextTable; readonly map?: PatchMapView })
  | (Named & { readonly kind: 'bars'; readonly bars: Bars })
  | (Named & { readonly kind: 'curves'; readonly figure: Figure })
  | (Named & { readonly kind: 'pies'; readonly pies: Pies })
  | (Named & { readonly kind: 'scatter'; readonly scatter: Scatter })
  | (Named & { readonly kind: 'lens'; readonly lens: LensView })
  | (Named & { readonly kind: 'examples'; readonly examples: readonly WorkedExample[] });

/** A table of texts and numbers, e.g. the top-5 decodings. A number sorts as one and is shown with `digits`. */
export interface TextTable {
  readonly title: string;
  readonly columns: readonly {
    readonly name: string;
    readonly digits?: number;
    /** Its name in CSV, where no two may be alike. Defaults to `name`. */
    readonly csv?: string;
  }[];
  readonly rows: readonly (readonly (string | number | undefined)[])[];
  readonly notes: readonly string[];
  /** Colours the numbers of all columns but the first, from the pale end at the first of these to the dark one. Defaults to no colours. */
  readonly shade?: readonly [low: number, high: number];
}

/** Values from 0 to 1 with their intervals, a bar each, e.g. the accuracy of every condition. */
export interface Bars {
  readonly title: string;
  readonly xLabel: string;
  /** The same group has the same colour. */
  readonly bars: readonly {
    readonly label: string;
    readonly group: string;
    readonly value: number;
    readonly low: number;
    readonly high: number;
  }[];
  /** As `colourOrder` of `Figure`. */
  readonly groupOrder?: readonly string[];
  readonly notes?: readonly string[];
}

/** Shares of a whole, e.g. what the best token is at an early, a middle and a late layer. */
export interface Pies {
  readonly title: string;
  /** The same label has the same colour and hatching in all pies. */
  readonly pies: readonly {
    readonly title: string;
    /** Counts. */
    readonly slices: readonly {
      readonly label: string;
      readonly count: number;
      readonly examples?: readonly string[];
    }[];
  }[];
  /** As in `Figure`. */
  readonly colourOrder?: readonly string[];
  readonly notes?: readonly string[];
}

/** Points in two dimensions, coloured by `colour` and shaped by `shape`. */
export interface Scatter {
  readonly title: string;
  readonly panels: readonly {
    readonly title: string;
    readonly xLabel: string;
    readonly yLabel: string;
    readonly points: readonly {
      readonly x: number;
      readonly y: number;
      readonly colour: string;
      readonly shape: string;
      /** Said when the point is hovered or focused. */
      readonly label: string;
    }[];
  }[];
  readonly notes?: readonly string[];
}

/** A logit lens with the prompt that it was read on. */
export interface LensView {
  readonly title: string;
  readonly lens: Lens;
  /**
   * How many of the lens's chosen tokens are listed next to every state; the others are there to be pinned. Defaults to all.
   */
  readonly listed?: number;
  /** What is at each position of the lens, in their order: the text of the token; `image` for a row of a picture. */
  readonly inputs: readonly { readonly text: string; readonly kind: 'token' | 'image' }[];
  /** The pictures of the prompt whose rows are among the positions of the lens. */
  readonly pictures: readonly LensPicture[];
  readonly notes?: readonly string[];
}

/** An activation patching map: in the page a grid, whose cells say what they are, stands for the table of its numbers. */
export interface PatchMapView {
  /** Such as `logit of "Lima" - "Tokyo"`. */
  readonly metric: string;
  /** The metric of the clean prompt and of the corrupt one. */
  readonly clean: number;
  readonly corrupt: number;
  /** Ascending. */
  readonly layers: readonly number[];
  /** What a column is. */
  readonly unit: 'position' | 'head';
  readonly columns: readonly PatchMapColumn[];
  /** The metric under each patch, [layers][columns]. */
  readonly values: readonly (readonly number[])[];
  /** The best next tokens, if they are known. */
  readonly top?: {
    readonly clean: readonly BestToken[];
    readonly corrupt: readonly BestToken[];
    /** [layers][columns] */
    readonly patched: readonly (readonly (readonly BestToken[])[])[];
  };
}

/** A position or a head. */
export interface PatchMapColumn {
  readonly number: number;
  /** Of a position: the token of the corrupt prompt and of the clean one; null for a row of a picture. */
  readonly inputs?: readonly [corrupt: string | null, clean: string | null];
}

/** A token with its probability. */
export type BestToken = readonly [text: string, probability: number];

/** A picture as the model saw it, after its preprocessing. */
export interface LensPicture {
  readonly picture: RgbImage;
  /** Position in the prompt of its first row. */
  readonly first: number;
  readonly grid: PatchGrid;
}

/** One query, answered without and with the patch. */
export interface WorkedExample {
  readonly task: string;
  /** What became of the query under the patch and the prompt that the experiment compares. Defaults to no such pair. */
  readonly cell?: string;
  /** Path of the query's picture; left out for a text query. */
  readonly picture?: string;
  /** What the query shows, e.g. `peru.png` or `Peru`. */
  readonly query: string;
  readonly expected: string;
  /** Those that the query was chosen by go first. */
  readonly answers: readonly { readonly condition: string; readonly answer: string; readonly correct: boolean }[];
}
