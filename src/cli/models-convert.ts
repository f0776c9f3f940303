import { CONVERSION_TYPES } from '../gguf/tensor-types.js';
import { gigabytes } from '../util/counted.js';
import { defineCommand } from './command.js';
import { choice, text, vary } from './option.js';
import { OUTPUT_FOLDER, OUTPUT_OPTIONS, THREADS } from './options.js';

/** `xpatch models convert`: converts a Hugging Face checkpoint that llama.cpp cannot convert to GGUF. */
export const modelsConvert = defineCommand({
  command: 'convert <folder>',
  describe: 'Convert a checkpoint of Idefics2, Fuyu or Persimmon to GGUF',
  positionals: {
    folder: vary(
      text('Folder of a Hugging Face checkpoint: config.json, *.safetensors and the tokenizer', {
        completes: 'folder',
      }),
      { required: true },
    ),
  },
  options: {
    output: vary(OUTPUT_FOLDER, { describe: 'Folder to write to; created if missing', required: true }),
    type: vary(
      choice(CONVERSION_TYPES, 'How matrices are stored; f32 is for comparisons, q4_k is the mixture Q4_K_M'),
      { default: 'f16' },
    ),
    threads: vary(THREADS, { describe: 'Parts converted at once. Defaults to the cores, at most 4' }),
    ...OUTPUT_OPTIONS,
  },
  more: 'To resume an interrupted conversion, run the same command again.',
  examples: [
    ['The model of the paper, in 8 bits', 'models convert idefics2-8b -o models --type q8_0'],
    ['Smaller, in about 4.5 bits', 'models convert Mantis-8B-Fuyu -o models --type q4_k'],
    ['Run it', 'run -m models/idefics2-8b-q8_0.gguf --mmproj models/mmproj-idefics2-8b-q8_0.gguf --prompt "Hello"'],
  ],
  run: async ({ folder, output, type, threads, json, quiet }, terminal) => {
    const { signal } = terminal;
    terminal.explainInterrupt('Run the same command again to resume from here.');
    using progress = terminal.progress({ json, quiet });
    const { convertCheckpoint } = await import('../convert/convert.js');
    progress.update('reading the checkpoint');
    const started = Date.now();
    let first: number | undefined;
    const conversion = await convertCheckpoint(folder, output, {
      type,
      ...(threads !== undefined && { threads }),
      signal,
      onProgress: ({ done, total }) => {
        first ??= done;
        const rate = (done - first) / Math.max(1, Date.now() - started);
        const left = rate > 0 ? `, ${Math.ceil((total - done) / rate / 60_000)} min left` : '';
        progress.update('converting', done / total, `${gigabytes(done)} of ${gigabytes(total)}${left}`);
      },
    });
    progress.done();
    if (json) return terminal.printJson(conversion);
    if (conversion.resumedFrom > 0) progress.note(`resumed after ${gigabytes(conversion.resumedFrom)}`);
    for (const note of conversion.notes) progress.note(note);
    for (const { path, bytes, types } of conversion.files) {
      const counts = Object.entries(types).map(([name, count]) => `${count} ${name}`);
      terminal.print(`${path}  ${gigabytes(bytes)}, ${counts.join(', ')}\n`);
    }
  },
});
