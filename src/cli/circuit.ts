import { circuitAblate } from './circuit-ablate.js';
import { circuitAttribute } from './circuit-attribute.js';
import { circuitFunctionVector } from './circuit-function-vector.js';
import { circuitHeads } from './circuit-heads.js';
import { circuitMap } from './circuit-map.js';
import { defineGroup } from './command.js';

/** `xpatch circuit`: which parts of a model carry an answer. */
export const circuit = defineGroup({
  command: 'circuit',
  describe: 'Which parts of a model carry an answer: patching maps, heads, attribution, ablation',
  subcommands: [circuitMap, circuitAttribute, circuitAblate, circuitFunctionVector, circuitHeads],
  examples: [
    [
      'Where the country is read, and where its capital is written',
      'circuit map -m demo --from "Q:Japan\\nA:Tokyo\\n\\nQ:Peru\\nA:" --into "Q:Japan\\nA:Tokyo\\n\\nQ:Cuba\\nA:" --right Lima --wrong Havana',
    ],
    ['The heads that carry a task', 'circuit function-vector -m demo --tasks country-capital -o fv.safetensors'],
  ],
});
