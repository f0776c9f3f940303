// docs/families.md from docs/families.json (tests/parity/measure.ts): node --import tsx tests/parity/table.ts
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { findLlama } from '../../install/layout.mjs';
import { NO_DECODERS } from '../../src/gguf/architecture-check.js';
import { HOOKS } from '../../src/hooks/types.js';
import { BOUNDS } from '../../src/studies/verify-model.js';
import { TIERS } from './compare.js';
import { FAMILIES } from './families.js';

/** How a family is called, which published models are of it, and what to know. */
const ABOUT: Record<string, [name: string, models: string, notes?: string]> = {
  gemma2: ['Gemma 2', 'gemma-2-2b, -9b, -27b'],
  gemma3: [
    'Gemma 3, with pictures',
    'gemma-3-4b, -12b, -27b',
    'rows of a picture see each other; `--n-ubatch` at least the rows of one',
  ],
  gemma4: ['Gemma 4, dense', 'gemma-4-31B', 'output rows selected after the last block, as in gpt-oss and Hy3'],
  'gpt-neox': ['GPT-NeoX', 'Pythia, GPT-NeoX-20B'],
  'gpt-oss': ['gpt-oss', 'gpt-oss-20b, -120b'],
  'hy-v3': ['Hunyuan 3', 'Hy3'],
  idefics2: ['Idefics2', 'Idefics2-8B', 'own encoder; `xpatch models convert`'],
  internvl: ['InternVL', 'InternVL 2.5 and 3, up to 8B', 'class token corrected at build time; tiles of 448 pixels'],
  llama: ['Llama', 'Llama 1 to 3, Vicuna, SmolLM2, TinyLlama'],
  llava: ['LLaVA (CLIP)', 'LLaVA-1.5', 'class token corrected at build time'],
  'llava-siglip': ['LLaVA (SigLIP)', 'LLaVA with a SigLIP tower'],
  'mantis-fuyu': ['Mantis-Fuyu', 'Mantis-8B-Fuyu', 'own encoder; `xpatch models convert`'],
  mistral: ['Mistral', 'Mistral-7B', 'no sliding window: exact up to 4096 tokens with v0.1'],
  persimmon: ['Persimmon', 'Persimmon-8B', 'q/k norm in the eval callback; `xpatch models convert`'],
  phi3: ['Phi-3', 'Phi-3-mini, -medium', 'no sliding window: exact up to 2047 tokens with Phi-3-mini-4k'],
  pixtral: [
    'Pixtral',
    'Pixtral-12B',
    "the converter of llama.cpp v0.4.0 loses `[IMG_BREAK]` of checkpoints in transformers' format",
  ],
  qwen2: ['Qwen2', 'Qwen2, Qwen2.5'],
  'qwen2-vl': [
    'Qwen2-VL',
    'Qwen2-VL-2B, -7B',
    '`zero` ends with NOT_FINITE: llama.cpp v0.4.0 takes 0 for the RMS epsilon',
  ],
  'qwen2.5-vl': ['Qwen2.5-VL', 'Qwen2.5-VL-3B, -7B', '`zero` as above'],
  qwen3: ['Qwen3', 'Qwen3, dense'],
  'qwen3-vl': ['Qwen3-VL', 'Qwen3-VL, dense', 'a state is what the next block reads: with the rows of the deepstack'],
  smolvlm: ['SmolVLM (Idefics3)', 'SmolVLM, SmolVLM2, Idefics3-8B', 'tiles and the whole picture reduced'],
};

interface Record_ {
  files: string;
  transformers: string;
  /** Points that it lacks in some layers. */
  missing: Record<string, { layers: number[]; reason: string }[]>;
  tiers: Record<string, { cosineFromOne: number; magnitudeFromOne: number; nmse: number; absolute: number }>;
}

export const records = (): Record<string, Record_> =>
  JSON.parse(readFileSync(new URL('../../docs/families.json', import.meta.url), 'utf8'));

const row = (...cells: (string | number)[]) => `| ${cells.join(' | ')} |`;
const head = (...cells: string[]) => [row(...cells), row(...cells.map(() => '---'))];

export function render(): string {
  const measured = records();
  const { tag: release } = findLlama();
  const [exact, , fast] = TIERS as [(typeof TIERS)[0], (typeof TIERS)[0], (typeof TIERS)[0]];
  const power = (value: number) => (value === 0 ? '0' : value.toExponential(0));
  const families = FAMILIES.map((family) => {
    const record = measured[family.name];
    const [name = family.name, models = '', notes = ''] = ABOUT[family.name] ?? [];
    if (!record)
      throw new Error(`docs/families.json has no ${family.name}: run tests/parity/measure.ts ${family.name}`);
    const cells = [exact, fast].flatMap((tier) => {
      const numbers = record.tiers[tier.name];
      return numbers
        ? [`${power(numbers.cosineFromOne)}, ${power(numbers.magnitudeFromOne)}, ${power(numbers.absolute)}`]
        : ['?'];
    });
    const what = family.mmproj ? 'states, logits, patched, lens, pictures' : 'states, logits, patched, lens';
    return row(
      name,
      `\`${family.architecture}\``,
      models,
      what,
      ...cells,
      exact.bounds(family).absolute ?? '',
      record.transformers,
      notes,
    );
  });
  const points = FAMILIES.map((family) => {
    const { missing = {} } = measured[family.name] ?? {};
    const [name = family.name] = ABOUT[family.name] ?? [];
    const why = Object.entries(missing).map(([hook, refusals]) => {
      const reasons = refusals.map(({ layers, reason }) =>
        layers.length === family.nLayers ? reason : `layers ${layers.join(', ')}: ${reason}`,
      );
      return `\`${hook}\`: ${reasons.join('; ')}`;
    });
    return row(
      name,
      HOOKS.filter((hook) => missing[hook]?.[0]?.layers.length !== family.nLayers).length,
      why.join('. '),
    );
  });
  const refused = Object.entries(NO_DECODERS).map(([what, names]) =>
    row(names.map((name) => `\`${name}\``).join(', '), 'not loaded', '`ARCHITECTURE_UNSUPPORTED`', what),
  );
  const noHooks = [
    [
      'hybrid: Jamba, Falcon-H1, Granite 4 hybrid, LFM2, Nemotron-H, Qwen3-Next, Qwen3.5, Kimi Linear',
      'some of the layers pass on a recurrent state besides the residual stream',
    ],
    [
      'shared keys and values: Gemma 3n, small Gemma 4',
      'later layers read the keys and values of earlier ones, so that later tokens do not see a patched state',
    ],
    ['an embedding per layer: Gemma 3n, small Gemma 4', 'every layer reads its own embedding of the token'],
    ['several residual streams: DeepSeek 4 (hyper-connections)', 'a hook sees one stream'],
    ['blocks whose output has no name in llama.cpp', 'there is no node to hook'],
  ].map(([what, why]) =>
    row(what as string, 'runs; states are neither read nor patched', '`HOOK_UNSUPPORTED`', why as string),
  );
  const bounds = BOUNDS.map(({ name, bounds: { cosine, magnitude, nmse } }) =>
    row(name, `>= ${cosine}`, `${+(100 * magnitude).toFixed(1)} %`, `<= ${nmse}`),
  );
  return `# Which models are verified

Made by \`node --import tsx tests/parity/table.ts\`; the numbers by \`node --import tsx tests/parity/measure.ts\`, on the CPU, with llama.cpp
${release}. How: [correctness.md](correctness.md).

A tiny random-weight checkpoint of each family was made by transformers (the version is in the table) and converted as a user would
convert a real one. We compare the output of every block at every position, the logits, and both under \`replace\`, \`add\`, \`scale\` and
\`zero\`; for models with pictures, prompts with one and with two pictures among text. Each cell has the worst row of all: 1 - cosine,
distance of the magnitude from 1, and the largest difference of a value (values are around 1 to 10).

\`npm run test:parity\` holds every row to cosine >= 0.9999, magnitude within 1 % and NMSE <= 1e-5, with either cache, with and without
flash attention, and prompts cut into pieces; without 16-bit rounding (${exact.name}) also to the largest difference in the column
"bound". By default the cache is f16, and flash attention is on where model and device have it; with a cache of f32 it is off.

${[...head('family', 'architecture', 'models', 'verified', exact.name, fast.name, 'bound', 'transformers', 'notes'), ...families].join('\n')}

The weights are those of the tiny models; check a real one with \`xpatch verify-model\` (below). An architecture that is not in this table
may run: its hooks are checked when they are set, but its numbers are not known to be right.

## Points besides \`resid_post\`

Of the ${HOOKS.length} points of [hooks.md](hooks.md), without flash attention, which has no \`attn_scores\` and \`pattern\`. \`xpatch hooks -m MODEL\` lists those of
any model. States at every point of block 1, and logits when something is added there, equal transformers' in twelve families
(\`tests/parity/hooks.test.ts\`: within 1e-4 of the largest number, 5e-3 with GELU from a table); laws that any model obeys are tested in fourteen
(\`tests/native/hooks.test.ts\`). llama.cpp rotates a Llama's \`q\` and \`k\` in adjacent pairs, so their dimensions are in a different
order from transformers'.

${[...head('family', 'points', 'missing'), ...points].join('\n')}

## Where llama.cpp computes differently

What affects a loaded model is in \`model.notes\`, and the command line prints it once on stderr (not with \`--quiet\`).

- **Sliding windows.** llama.cpp v0.4.0 disables Phi-3's, and a Mistral converted as a Llama has none. Prompts within the window
  (Phi-3-mini-4k: 2047 tokens) are exact; in longer ones tokens see further back than in training. A file that names no window, such
  as a Mistral's, gets no note.
- **Quantised weights.** ggml rounds states to a few bits before every product, so a difference in a last digit, which depends
  on the rows computed together, can grow to a whole step. In most models this gave 1 - cosine of at most 5e-4. Where a few numbers of a state are far larger than the
  rest, the steps are coarse. In Gemma-3-270M in Q4_K_M, block 11 of 18, a state differs by 4 % of its norm in the median and by up to 21 % (50
  prompts with a picture, alone and in batches of 2 to 50); with llama.cpp alone, without xpatch, by 3 % and up to 5 % (12 prompts of text). Compare small effects on F16 or F32 files.
- **LLaVA-1.6.** mtmd cuts its pictures into tiles but leaves out the rows for line breaks and does not crop the padding, so the
  model reads different rows than in training. LLaVA-1.5 is not affected.

Qwen3-VL and Granite 4 Vision have a deepstack: their encoder gives further rows for each picture, which are added between one block and
the next. \`resid_post\` is what the next block reads, including these rows; at the first layers, transformers' \`hidden_states\` equals it
only with them added.

The lens runs llama.cpp's own graph after the last block. llama.cpp's test generator makes 78 tiny random models whose states can
be hooked: the lens reads all of them, and in each the last block's states give exactly the logits of the pass.

## What is refused

${[...head('model', 'what happens', 'code', 'why'), ...refused, ...noHooks].join('\n')}

Whatever its architecture, a model whose \`attention.causal\` is false is not loaded. \`tests/parity/refused.test.ts\` has a tiny
model of each kind.

## Your own weights

    python scripts/verify-model/dump.py --model CHECKPOINT --prompt "Q:France\\nA:Paris\\n\\nQ:Peru\\nA:" -o reference.safetensors
    xpatch verify-model -m model.gguf --reference reference.safetensors

\`dump.py\` needs transformers and 4 bytes of memory per parameter; \`--prompt "Q:<image>\\nA:" --image flag.png\` adds a picture. The command
prints cosine, magnitude and NMSE of every layer, of the logits and of the rows of the pictures, with \`--json\` as one object, and ends with
exit code 1 if a number is out of bounds. It uses a float32 cache, so that only the weights differ. Bounds depend on the bits that a
weight takes on average:

${[...head('weights', 'cosine of the worst row', 'magnitude', 'NMSE of a layer'), ...bounds].join('\n')}

Below 8 bits a small model loses so much that the bounds catch only gross faults; to check a model closely, compare its F16 or F32
conversion. Measurements on SmolLM2-135M: [correctness.md](correctness.md).
`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(new URL('../../docs/families.md', import.meta.url), render());
}
