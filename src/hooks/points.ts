import type { NativePoint } from '../native/addon.js';
import { plural } from '../util/counted.js';
import { XpatchError } from '../util/errors.js';
import { groupBy } from '../util/group.js';
import { ATTENTION_HOOKS, type Edge, HOOKS, type HookName, type LayerSelection, ONE_PLACE } from './types.js';

/** What a model has at one point. */
export interface HookPoint {
  readonly hook: HookName;
  /** Layers that have it. */
  readonly layers: readonly number[];
  /** Numbers of a state; undefined where that is heads x positions of the prompt, or where layers differ. */
  readonly width?: number;
  /** Heads that a state is made of; undefined where it has none, or where layers differ. */
  readonly heads?: number;
  /** Of `q` and `k`: whether they carry a position encoding (rotated). */
  readonly rotated?: boolean;
  /** Why other layers do not have it. */
  readonly refusals: readonly { readonly layers: readonly number[]; readonly reason: string }[];
}

const WITHOUT = 'The model does run without captures and interventions.';
const NO_FLASH = "Make the context with flashAttention: 'off' (--flash-attention off)";

/** Which points the graph of a context has, as the addon found them by what is computed from what. */
export class HookPoints {
  constructor(
    private readonly points: readonly (readonly NativePoint[])[],
    private readonly architecture: string,
    /** Why nothing can be hooked, if so. */
    private readonly refusal: string | undefined,
  ) {}

  get nLayers(): number {
    return (this.points[0] as readonly NativePoint[]).length;
  }

  /** All points in the order of `HOOKS`. */
  list(): HookPoint[] {
    return HOOKS.map((hook) => {
      const all = this.of(hook);
      const layers = [...all.keys()].filter((layer) => this.reason(hook, layer) === undefined);
      const found = layers.map((layer) => all[layer] as NativePoint);
      const common = (key: 'width' | 'heads') => {
        const values = new Set(found.map((point) => point[key]));
        const [value] = values;
        return values.size === 1 && value ? value : undefined;
      };
      const width = common('width');
      const heads = common('heads');
      const rotated = hook === 'q' || hook === 'k' ? found.some((point) => point.rotated) : undefined;
      // That a point exists only once is not a refusal.
      const without =
        layers.length && ONE_PLACE[hook] ? [] : [...all.keys()].filter((layer) => !layers.includes(layer));
      const reasons = groupBy(without, (layer) => this.reason(hook, layer) as string);
      const refusals = Array.from(reasons, ([reason, refused]) => ({ layers: refused, reason }));
      return {
        hook,
        layers,
        ...(width !== undefined && { width }),
        ...(heads !== undefined && { heads }),
        ...(found.length && rotated !== undefined && { rotated }),
        refusals,
      };
    });
  }

  /**
   * The layers of a selection, all of which have the point.
   *
   * @throws XpatchError LAYER_OUT_OF_RANGE, INVALID_ARGUMENT, HOOK_UNSUPPORTED.
   */
  layers(hook: HookName, selection: number | LayerSelection | undefined): number[] {
    const place = ONE_PLACE[hook];
    if (place) {
      const only = place === 'first' ? 0 : this.nLayers - 1;
      const given = typeof selection === 'number' ? [selection] : (selection ?? 'all');
      const layers = given === 'all' ? [only] : resolveLayers(given, this.nLayers);
      if (layers.length !== 1 || layers[0] !== only) {
        const problem = `'${hook}' is only at layer ${only}, not at ${layers.join(', ')}`;
        throw new XpatchError('LAYER_OUT_OF_RANGE', `${problem}. Leave the layers out.`);
      }
      this.require(hook, layers);
      return layers;
    }
    const layers = resolveLayers(typeof selection === 'number' ? [selection] : selection, this.nLayers);
    this.require(hook, layers);
    return layers;
  }

  /** The point of a layer that has it. */
  at(hook: HookName, layer: number): NativePoint {
    return this.of(hook)[layer] as NativePoint;
  }

  /** @throws XpatchError HOOK_UNSUPPORTED when some of these layers lack the point. */
  require(hook: HookName, layers: readonly number[]): void {
    requireHookName(hook);
    if (this.refusal) {
      const problem = `States of '${this.architecture}' can be neither read nor patched: ${this.refusal}.`;
      throw new XpatchError('HOOK_UNSUPPORTED', `${problem} ${WITHOUT}`);
    }
    const missing = layers.filter((layer) => !this.at(hook, layer).there);
    const [first] = missing;
    if (first === undefined) return;
    const shown = `${missing.slice(0, 8).join(', ')}${missing.length > 8 ? ', ...' : ''}`;
    const wayOut = this.withFlash(hook, first) ? NO_FLASH : WITHOUT.slice(0, -1);
    throw new XpatchError(
      'HOOK_UNSUPPORTED',
      `'${this.architecture}' has no '${hook}' at ${plural(missing.length, 'layer')} ${shown}: ${this.at(hook, first).why}. ${wayOut}.`,
    );
  }

  /**
   * Layers whose attention edges can be cut.
   *
   * @throws XpatchError LAYER_OUT_OF_RANGE, INVALID_ARGUMENT, HOOK_UNSUPPORTED.
   */
  edgeLayers({ layers: selection, heads }: Edge): number[] {
    const layers = resolveLayers(typeof selection === 'number' ? [selection] : selection, this.nLayers);
    if (this.refusal) this.require('attn_scores', layers);
    const missing = layers.find((layer) => !this.at('attn_scores', layer).cuts);
    if (missing !== undefined) this.require('attn_scores', [missing]);
    const masked = layers.find((layer) => this.withFlash('attn_scores', layer));
    if (heads && masked !== undefined) {
      const problem = 'With flash attention all heads of a layer share one mask: a single head cannot be knocked out';
      throw new XpatchError('HOOK_UNSUPPORTED', `${problem}. ${NO_FLASH}, or leave the heads out.`);
    }
    return layers;
  }

  private withFlash(hook: HookName, layer: number): boolean {
    const point = this.at(hook, layer);
    return ATTENTION_HOOKS.includes(hook) && point.flash;
  }

  private of(hook: HookName): readonly NativePoint[] {
    return this.points[HOOKS.indexOf(hook)] as readonly NativePoint[];
  }

  private reason(hook: HookName, layer: number): string | undefined {
    if (this.refusal) return this.refusal;
    const { there, why } = this.at(hook, layer);
    if (there) return undefined;
    return this.withFlash(hook, layer) ? `${why} (--flash-attention off)` : why;
  }
}

/** @throws XpatchError HOOK_UNSUPPORTED. */
export function requireHookName(hook: string): void {
  if ((HOOKS as readonly string[]).includes(hook)) return;
  throw new XpatchError('HOOK_UNSUPPORTED', `There is no hook '${hook}'. Hooks: ${HOOKS.join(', ')}.`);
}

/**
 * Layers of a selection, checked against the model.
 *
 * @throws XpatchError LAYER_OUT_OF_RANGE, INVALID_ARGUMENT.
 */
export function resolveLayers(selection: LayerSelection | undefined, nLayers: number): number[] {
  if (selection === 'all') return Array.from({ length: nLayers }, (_, i) => i);
  if (!Array.isArray(selection)) {
    throw new XpatchError('INVALID_ARGUMENT', `Layers must be 'all' or a list of numbers, not ${selection}.`);
  }
  if (selection.length === 0)
    throw new XpatchError('INVALID_ARGUMENT', 'No layers were given. Name some, or use "all".');
  for (const layer of selection) checkLayer(layer, nLayers);
  if (new Set(selection).size !== selection.length) {
    throw new XpatchError('INVALID_ARGUMENT', `Layers repeat: ${selection.join(', ')}. Name each once.`);
  }
  return [...selection];
}

function checkLayer(layer: number, nLayers: number): void {
  if (!Number.isInteger(layer) || layer < 0 || layer >= nLayers) {
    throw new XpatchError(
      'LAYER_OUT_OF_RANGE',
      `Layer ${layer} does not exist: the model has layers 0 to ${nLayers - 1}.`,
    );
  }
}
