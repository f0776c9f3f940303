// Tiny models that carry a chat template.
import { readFileSync, writeFileSync } from 'node:fs';

/** In the manner of ChatML, with the tokens that the fixture `qwen2-vl` has. */
export const TEMPLATE = `{% for m in messages %}<|video_pad|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|video_pad|>assistant
{% endif %}`;

const KEY = 'tokenizer.chat_template';
const ALIGNMENT = 32;

/** Writes a GGUF with a template put in front of its other metadata. */
export function writeChatModel(from: string, to: string, template: string): void {
  const file = readFileSync(from);
  const kvCount = file.readBigUInt64LE(16);
  const entry = (text: string) => {
    const head = Buffer.alloc(8 + KEY.length + 4 + 8);
    head.writeBigUInt64LE(BigInt(KEY.length), 0);
    head.write(KEY, 8);
    head.writeUInt32LE(8, 8 + KEY.length);
    head.writeBigUInt64LE(BigInt(Buffer.byteLength(text)), 12 + KEY.length);
    return Buffer.concat([head, Buffer.from(text)]);
  };
  // What follows must stay aligned.
  const length = entry(`{##}${template}`).length;
  const padded = entry(`{#${' '.repeat((ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT)}#}${template}`);
  const counts = Buffer.from(file.subarray(0, 24));
  counts.writeBigUInt64LE(kvCount + 1n, 16);
  writeFileSync(to, Buffer.concat([counts, padded, file.subarray(24)]));
}
