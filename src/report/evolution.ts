import { type ClassCurves, classCurves, crossing, leadingShares, topClasses } from '../studies/class-curves.js';
import { type EvolutionCell, type EvolutionOptions, evolutionUnits } from '../studies/evolution.js';
import type { Modality } from '../tasks/prompts.js';
import { numbers, texts } from './columns.js';
import type { Figure } from './figures/figure.js';
import type { Block, Pies, Report, TextTable } from './report.js';
import { type AboutStudy, type StudyKind, studyReport } from './study-kind.js';
import { visibleText } from './visible.js';

/** What a run of `runEvolution` has to show. */
interface EvolutionFindings {
  readonly cells: readonly EvolutionCell[];
  /** The classes of each set of curves, and the curves of each cell, in the order of the cells. */
  readonly sets: readonly { readonly names: readonly string[]; readonly curves: readonly ClassCurves[] }[];
  readonly pieLayers: readonly number[];
}

/** The study in the folder of a run. */
export const evolution: StudyKind<EvolutionOptions & { pieLayers: readonly number[] }, EvolutionCell> = {
  units: evolutionUnits,
  report: async (cells, options, { signal, ...about }) =>
    evolutionReport(await evolutionFindings(cells, options.pieLayers, signal), about),
};

/** The curves of the cells: without the class `other`, which has many tokens, and with it. */
export async function evolutionFindings(
  cells: readonly EvolutionCell[],
  pieLayers: readonly number[],
  signal?: AbortSignal,
): Promise<EvolutionFindings> {
  const { classes: names = [] } = cells[0] ?? {};
  const without = names.filter((name) => name !== 'other');
  const sets: { names: readonly string[]; curves: ClassCurves[] }[] = [];
  for (const choice of without.length > 1 && without.length < names.length ? [without, names] : [names]) {
    const curves: ClassCurves[] = [];
    for (const cell of cells) curves.push(await classCurves(cell, choice, { signal }));
    sets.push({ names: choice, curves });
  }
  return { cells, sets, pieLayers };
}

/** What the classes are called in figures and tables. */
const LABELS: Readonly<Record<string, string>> = {
  input: 'input token',
  task: 'task word',
  answer: 'right answer',
  other: 'another answer',
};
/** Curves and pies of a page give a class the same colour. */
const COLOUR_ORDER = ['input token', 'task word', 'right answer', 'another answer', 'another token'];
const labelOf = (name: string): string => (Object.hasOwn(LABELS, name) ? (LABELS[name] as string) : name);

const DEFINITIONS: Readonly<Record<string, string>> = {
  input: 'Input token: the most frequent best token at layer 0, over the prompts of a task and modality.',
  task: 'Task word: the best of its spellings that are one token (with a capital letter, after a space).',
  answer: 'Right answer: its first token after "A:", or the first one after a space, whichever is better.',
  other:
    'Another answer: the best among the first tokens of all other answers of the task. A maximum over many tokens is high by chance alone, so its height cannot be compared with classes of one token; its course over layers can.',
};

export function evolutionReport(findings: EvolutionFindings, about: AboutStudy): Report {
  const { cells, sets, pieLayers } = findings;
  const modalities = [...new Set(cells.map(({ modality }) => modality))];
  const blocks: Block[] = [
    { kind: 'table', name: 'crossings', heading: 'Where the curves cross', table: crossingsTable(findings) },
    ...sets.flatMap(({ names, curves }, s) =>
      modalities.map((modality): Block => {
        const suffix = sets.length > 1 && s > 0 ? `-with-${names.at(-1)}` : '';
        return {
          kind: 'curves',
          name: slug(`curves-${modality}${suffix}`),
          heading: `${capital(modality)} prompts: ${names.map(labelOf).join(', ')}`,
          figure: curvesFigure(
            names,
            curves.filter((one) => one.modality === modality),
            cells.filter((cell) => cell.modality === modality),
          ),
        };
      }),
    ),
    {
      kind: 'pies',
      name: 'pies',
      heading: 'What the best token of the whole vocabulary is',
      pies: pies(
        'Best token at the last delimiter, all tasks',
        modalities.map((modality) => ({ name: modality, cells: cells.filter((cell) => cell.modality === modality) })),
        pieLayers,
      ),
    },
    ...modalities.map(
      (modality): Block => ({
        kind: 'pies',
        name: `pies-${modality}`,
        heading: `Best tokens by task, ${modality} prompts`,
        pies: pies(
          `Best token at the last delimiter, ${modality} prompts`,
          cells.filter((cell) => cell.modality === modality).map((cell) => ({ name: cell.task, cells: [cell] })),
          pieLayers,
        ),
      }),
    ),
  ];
  return studyReport(about, evolutionStatements(cells), blocks);
}

/** What the run shows, in sentences computed from it. */
export function evolutionStatements(cells: readonly EvolutionCell[]): string[] {
  const named = cells.filter(({ readings }) => readings[0]?.taskRank !== undefined);
  return [
    ...(named.length ? [taskWordStatement(named)] : []),
    ...[...new Set(cells.map(({ modality }) => modality))].map((modality) =>
      otherAnswerStatement(
        cells.filter((cell) => cell.modality === modality),
        modality,
      ),
    ),
    inputStatement(cells),
  ];
}

/** The prompts that were asked for, without those that were added because classes collide. */
const firstOf = (cell: EvolutionCell) => cell.readings.slice(0, cell.prompts);

function taskWordStatement(cells: readonly EvolutionCell[]): string {
  let best = { rank: Number.POSITIVE_INFINITY, where: '' };
  let decoded = 0;
  let prompts = 0;
  for (const cell of cells) {
    for (const { taskRank = [], top } of firstOf(cell)) {
      prompts++;
      if (top.some(({ is }) => is === 'task word')) decoded++;
      taskRank.forEach((rank, layer) => {
        if (rank < best.rank) best = { rank, where: `${cell.task}, ${cell.modality}, layer ${layer}` };
      });
    }
  }
  const nearest = decoded > 0 ? '' : ` The nearest it comes is rank ${best.rank + 1} (${best.where}).`;
  return `The task word is the best token of the whole vocabulary, at any layer, in ${decoded} of ${prompts} prompts.${nearest}`;
}

function otherAnswerStatement(cells: readonly EvolutionCell[], modality: Modality): string {
  const layers = cells[0]?.readings[0]?.top.length ?? 0;
  const shares = Array.from({ length: layers }, (_, layer) => {
    const classes = topClasses(cells, layer);
    const count = (label: string) => classes.find((entry) => entry.label === label)?.count ?? 0;
    return { layer, other: count('another answer'), right: count('right answer') };
  });
  const n = cells.reduce((sum, cell) => sum + firstOf(cell).length, 0);
  const most = shares.reduce((a, b) => (b.other > a.other ? b : a));
  let from = layers;
  while (from > 0 && (shares[from - 1]?.right ?? 0) > (shares[from - 1]?.other ?? 0)) from--;
  const last = shares.at(-1) as (typeof shares)[number];
  const turn =
    from < layers
      ? `From layer ${from} on the right answer is more frequent; at the last layer it is the best token in ${last.right}.`
      : `The right answer is not more frequent even at the last layer (${last.right} against ${last.other}).`;
  const others =
    most.other === 0
      ? `another answer of the same task is the best token in none of ${n} prompts, at any layer`
      : `another answer of the same task is the best token in ${most.other} of ${n} prompts at layer ${most.layer}, where that is most frequent`;
  return `${capital(modality)} prompts: ${others}. ${turn}`;
}

function inputStatement(cells: readonly EvolutionCell[]): string {
  const answers = cells.filter(({ input }) => input.answer);
  const examples = answers
    .slice(0, 3)
    .map((cell) => `${visibleText(cell.input.text)} in ${cell.task}, ${cell.modality}`);
  const which = examples.length ? ` (such as ${examples.join('; ')})` : '';
  return `The input token, the most frequent best token at layer 0, is itself an answer of the task in ${answers.length} of ${cells.length} cases${which}.`;
}

/** A row a task and modality: where one curve rises over another for good, and which share of the layers each one leads. */
export function crossingsTable({ cells, sets }: EvolutionFindings): TextTable {
  const pairs = sets.flatMap(({ names }, s) =>
    (s === 0 ? crossingPairs(names) : [['answer', 'other'] as const])
      .filter((pair) => pair.every((name) => names.includes(name)))
      .map(([over, under]) => ({ s, over, under })),
  );
  const led = sets[0]?.names ?? [];
  return {
    title: 'Layers where curves cross, and shares of the layers that each one leads',
    columns: [
      ...texts('task', 'prompts', 'n', 'token at layer 0'),
      ...numbers(1, ...pairs.map(({ over, under }) => `${labelOf(over)} over ${labelOf(under)}`)),
      ...numbers(2, ...led.map((name) => `${labelOf(name)} leads`)),
    ],
    rows: cells.map((cell, i) => {
      const shares = leadingShares(sets[0]?.curves[i]?.curves ?? []);
      return [
        cell.task,
        cell.modality,
        sets[0]?.curves[i]?.n,
        `${visibleText(cell.input.text)} (${cell.input.count} of ${cell.prompts})${cell.input.answer ? ', an answer' : ''}`,
        ...pairs.map(({ s, over, under }) => {
          const values = (name: string) =>
            sets[s]?.curves[i]?.curves.find((curve) => curve.name === name)?.points.map(({ value }) => value);
          const [a, b] = [values(over), values(under)];
          return a && b && crossing(a, b);
        }),
        ...led.map((name) => shares.get(name)),
      ];
    }),
    notes: [
      'A crossing is the layer (0-based block output, linear between layers) from which on the mean of the first class stays above that of the second; 0 when it is above from the start, empty when it is not above at the last layer or one of them has no curve. Between two curves near 0 it means little: see which one leads.',
      `Crossings and shares are those of the softmax over ${led.map(labelOf).join(', ')}; those against another answer of the softmax over all classes.`,
      ...collisionNotes(cells, sets[0]?.curves ?? []),
    ],
  };
}

/** Each class over the one before, and the last over the first: the phase between them may be missing. */
function crossingPairs(names: readonly string[]): (readonly [over: string, under: string])[] {
  const pairs = names.slice(1).map((over, i) => [over, names[i] as string] as const);
  return names.length > 2 ? [...pairs, [names.at(-1) as string, names[0] as string] as const] : pairs;
}

function collisionNotes(cells: readonly EvolutionCell[], curves: readonly ClassCurves[]): string[] {
  const list = (entries: string[]) => entries.join('; ');
  const passed = curves.filter(({ passedOver }) => passedOver > 0);
  const ambiguous = cells.filter((cell) => cell.ambiguous > 0);
  return [
    ...(passed.length
      ? [
          `Prompts in which two classes share a token cannot tell them apart and were passed over, others drawn instead: ${list(passed.map((one) => `${one.task}, ${one.modality} ${one.passedOver}`))}.`,
        ]
      : []),
    ...(ambiguous.length
      ? [
          `Prompts whose right answer begins with the same token as another answer, which then counts as right: ${list(ambiguous.map((cell) => `${cell.task}, ${cell.modality} ${cell.ambiguous} of ${cell.prompts}`))}.`,
        ]
      : []),
    ...cells.flatMap((cell) =>
      Object.entries(cell.missing).map(
        ([name, why]) => `No ${labelOf(name)} in ${cell.task}, ${cell.modality}: ${why}.`,
      ),
    ),
  ];
}

function curvesFigure(
  names: readonly string[],
  curves: readonly ClassCurves[],
  cells: readonly EvolutionCell[],
): Figure {
  return {
    title: `The last delimiter through the layers, ${cells[0]?.modality} prompts`,
    xLabel: 'layer (0-based block output)',
    yLabel: 'probability among the classes',
    colourOrder: COLOUR_ORDER,
    panels: curves.map((one) => ({
      title: `${one.task} (n = ${one.n})`,
      series: one.curves.map(({ name, points }) => ({
        label: labelOf(name),
        points: points.map(({ value, low, high }, layer) => ({ x: layer, y: value, low, high })),
      })),
    })),
    notes: [
      ...evolutionStatements(cells),
      `Softmax over ${names.map(labelOf).join(', ')} only; mean over n prompts with 95 % bootstrap bands.`,
      ...names.flatMap((name) => (Object.hasOwn(DEFINITIONS, name) ? (DEFINITIONS[name] as string) : [])),
      ...[
        ...new Set(curves.flatMap(({ without }) => without.map(({ name, reason }) => `${labelOf(name)}: ${reason}`))),
      ].map(
        (reason) =>
          `No curve in ${curves
            .filter(({ without }) => without.some((entry) => `${labelOf(entry.name)}: ${entry.reason}` === reason))
            .map(({ task }) => task)
            .join(', ')} for ${reason}.`,
      ),
    ],
  };
}

function pies(
  title: string,
  groups: readonly { name: string; cells: readonly EvolutionCell[] }[],
  layers: readonly number[],
): Pies {
  return {
    title,
    colourOrder: COLOUR_ORDER,
    pies: groups.flatMap(({ name, cells }) =>
      layers.map((layer) => ({ title: `${name}, layer ${layer}`, slices: topClasses(cells, layer) })),
    ),
    notes: [
      'A token that is in several classes counts as the first of: right answer, task word, another answer of the task, input token.',
    ],
  };
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
const slug = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, 64);
