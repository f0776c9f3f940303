import { basename } from 'node:path';
import { DUMP_SCRIPT, openReference } from '../studies/model-reference.js';
import { type Difference, type ModelReport, verifyModel, within } from '../studies/verify-model.js';
import { counted } from '../util/counted.js';
import { defineCommand } from './command.js';
import { fetchEvents, openModel } from './common.js';
import { EXIT } from './errors.js';
import { text, vary } from './option.js';
import { MODEL_OPTIONS, OUTPUT_OPTIONS } from './options.js';

/** `xpatch verify-model`: whether a GGUF computes what transformers computes with the weights it was made from. */
export const verifyModelCommand = defineCommand({
  command: 'verify-model',
  describe: 'Compare the hidden states of a model with a dump from transformers',
  options: {
    reference: vary(text(`File that ${basename(DUMP_SCRIPT)} made`, { value: 'FILE', completes: 'file' }), {
      required: true,
    }),
    ...MODEL_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  more: `The script is ${DUMP_SCRIPT}.`,
  examples: [
    ['Compare', 'verify-model -m model.gguf --reference reference.safetensors'],
    ['With pictures', 'verify-model -m model.gguf --mmproj mmproj.gguf --reference reference.safetensors'],
  ],
  run: async (args, terminal) => {
    const { signal } = terminal;
    using progress = terminal.progress(args);
    await using reference = await openReference(args.reference);
    await using model = await openModel(args, fetchEvents(terminal, progress));
    // We choose the rounding of the cache, so that only the weights differ.
    const { nCtx, nUbatch, flashAttention = 'off' } = args;
    const context = await model.createContext({ nCtx, nUbatch, flashAttention, kvType: 'f32' });
    const onProgress = ({ done, total }: { done: number; total: number }) => progress.update('comparing', done / total);
    const report = await verifyModel(model, context, reference, { signal, onProgress });
    progress.done();
    const { madeWith, model: from } = reference;
    if (args.json) terminal.printJson({ model: model.identity, reference: { madeWith, model: from }, ...report });
    else terminal.print(describe(report, `${from} by ${madeWith}`));
    if (!report.ok) terminal.exitCode = EXIT.failed;
  },
});

function describe({ bits, weights, bounds, prompts, ok }: ModelReport, reference: string): string {
  const line = (what: string, difference: Difference) => {
    const { cosine, magnitude, nmse } = difference;
    const cells = [cosine.toFixed(6).padStart(9), magnitude.toFixed(4).padStart(10), nmse.toExponential(1).padStart(9)];
    return `  ${what.padEnd(12)}${cells.join(' ')}${within(difference, bounds) ? '' : '  out of bounds'}\n`;
  };
  const { cosine, magnitude, nmse } = bounds;
  let text = `reference: ${reference}\nweights: ${weights} (${bits.toFixed(2)} bits per weight); bounds: cosine >= ${cosine}, magnitude within ${100 * magnitude} %, NMSE <= ${nmse}\n`;
  for (const [i, prompt] of prompts.entries()) {
    text += `\nprompt ${i}, ${counted(prompt.length, 'position')}\n`;
    if (prompt.tokens !== undefined) {
      text += `  other tokens: ${prompt.tokens}\n`;
      continue;
    }
    text += `  ${''.padEnd(12)}   cosine  magnitude      NMSE\n`;
    if (prompt.embeddings) text += line('pictures', prompt.embeddings);
    text += prompt.layers.map((layer, n) => line(`layer ${n}`, layer)).join('');
    if (prompt.logits) {
      text += line('logits', prompt.logits);
      text += `  next token: ${prompt.logits.sameBest ? 'the same' : 'another one'}\n`;
    }
  }
  return `${text}\n${ok ? 'The model agrees with the reference.' : 'The model does not agree with the reference.'}\n`;
}
