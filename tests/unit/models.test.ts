import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { splitPaths } from '../../src/gguf/split.js';
import { bytesOf, findEntry, listCatalogue, memoryOf, publishedUris, shippedFiles } from '../../src/hub/catalogue.js';
import {
  chooseCheckpoint,
  chooseFiles,
  formatHubSource,
  type HubFile,
  isSafePath,
  parseHubSource,
} from '../../src/hub/hub-source.js';
import { proxyFor } from '../../src/hub/proxy.js';
import { locateModel, resolveModel } from '../../src/hub/resolve.js';
import { checkTemplate } from '../../src/tasks/template.js';
import { PACKAGE_ROOT } from '../../src/util/package-root.js';

const files = (...paths: string[]): HubFile[] =>
  paths.map((path, i) => ({ path, size: 10 + i, hash: `sha256:${String(i).padStart(64, '0')}` }));
const codeOf = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'none';
};

describe('hf: URIs', () => {
  test.each([
    ['hf:u/r', { user: 'u', repo: 'r', revision: 'main' }],
    ['hf:u/r:q4_k_m', { user: 'u', repo: 'r', revision: 'main', quantisation: 'Q4_K_M' }],
    ['hf:u/r/a/b-Q8_0.gguf', { user: 'u', repo: 'r', revision: 'main', file: 'a/b-Q8_0.gguf' }],
    ['hf:u/r:F16#refs/pr/1', { user: 'u', repo: 'r', revision: 'refs/pr/1', quantisation: 'F16' }],
    ['hf:u/r/x.gguf#v1.0', { user: 'u', repo: 'r', revision: 'v1.0', file: 'x.gguf' }],
  ])('%s', (uri, expected) => {
    expect(parseHubSource(uri)).toEqual({ quantisation: undefined, file: undefined, ...expected });
    expect(parseHubSource(formatHubSource(parseHubSource(uri)))).toEqual(parseHubSource(uri));
  });

  test.each([
    'hf:',
    'hf:u',
    'hf:u/',
    'hf:/r',
    'hf:../r',
    'hf:u/..',
    'hf:u/r/',
    'hf:u/r/../../etc/passwd.gguf',
    'hf:u/r/a.safetensors',
    'hf:u/r#..',
    'hf:u/r#a/../b',
    'hf:u/r:',
    'hf:u/r:a b',
    'hf:u\\r/x',
    'hf:u/r/\u0000.gguf',
    'hf:u/r\n',
  ])('%j is refused', (uri) => {
    expect(codeOf(() => parseHubSource(uri))).toBe('INVALID_ARGUMENT');
  });

  test('a path of a server that would leave its folder is no path', () => {
    for (const path of ['../x', 'a/../x', '/x', 'a//x', '.x', 'a/.x', 'C:x', 'a\\x', 'a\u202ex', '', 'x.', 'x ']) {
      expect(`${path} ${isSafePath(path)}`).toBe(`${path} false`);
    }
    expect(isSafePath('a b/c-(1)_é.gguf')).toBe(true);
  });
});

describe('the files that a URI means', () => {
  const choose = (listed: HubFile[], uri: string, encoder = true) => {
    const { model, mmproj } = chooseFiles(listed, parseHubSource(uri), encoder);
    return { model: model.map(({ path }) => path), mmproj: mmproj?.path };
  };
  const vlm = files(
    'README.md',
    'm-Q4_K_M.gguf',
    'm-Q8_0.gguf',
    'm.Q5_K_S.gguf',
    'mmproj-m-Q8_0.gguf',
    'mmproj-m-f16.gguf',
    'm-imatrix.gguf',
  );

  test('a quantisation, however it is written, with the F16 picture encoder', () => {
    expect(choose(vlm, 'hf:u/r:q8_0')).toEqual({ model: ['m-Q8_0.gguf'], mmproj: 'mmproj-m-f16.gguf' });
    expect(choose(vlm, 'hf:u/r:Q5_K_S')).toEqual({ model: ['m.Q5_K_S.gguf'], mmproj: 'mmproj-m-f16.gguf' });
    expect(choose(vlm, 'hf:u/r:Q8_0', false).mmproj).toBeUndefined();
  });

  test('Q4_K_M where none is named, or the only file there is', () => {
    expect(choose(vlm, 'hf:u/r').model).toEqual(['m-Q4_K_M.gguf']);
    expect(choose(files('only-Q6_K.gguf', 'mmproj-x-BF16.gguf'), 'hf:u/r')).toEqual({
      model: ['only-Q6_K.gguf'],
      mmproj: 'mmproj-x-BF16.gguf',
    });
  });

  test('a file, with the picture encoder of its folder; an mmproj alone', () => {
    const listed = files('a/m.gguf', 'a/mmproj-F32.gguf', 'mmproj-F16.gguf');
    expect(choose(listed, 'hf:u/r/a/m.gguf')).toEqual({ model: ['a/m.gguf'], mmproj: 'a/mmproj-F32.gguf' });
    expect(choose(listed, 'hf:u/r/mmproj-F16.gguf')).toEqual({ model: ['mmproj-F16.gguf'], mmproj: undefined });
  });

  test('all parts of a split model, in order', () => {
    const parts = [
      'q/m-Q4_K_M-00001-of-00003.gguf',
      'q/m-Q4_K_M-00002-of-00003.gguf',
      'q/m-Q4_K_M-00003-of-00003.gguf',
    ];
    expect(choose(files(...[...parts].reverse()), 'hf:u/r:Q4_K_M').model).toEqual(parts);
    expect(choose(files(...parts), `hf:u/r/${parts[1]}`).model).toEqual(parts);
    expect(splitPaths(`/x/${parts[2]}`)).toEqual(parts.map((part) => `/x/${part}`));
    expect(codeOf(() => choose(files(...parts.slice(0, 2)), 'hf:u/r'))).toBe('FILE_NOT_FOUND');
  });

  test('what is not there, or is there twice, is refused with what there is', () => {
    expect(() => choose(vlm, 'hf:u/r:Q2_K')).toThrow(/no Q2_K.*m-Q4_K_M\.gguf/);
    expect(() => choose(files('a-Q4_K_M.gguf', 'b-Q4_K_M.gguf'), 'hf:u/r')).toThrow(/several files of Q4_K_M/);
    expect(() => choose(files('a-Q8_0.gguf', 'b-Q6_K.gguf'), 'hf:u/r')).toThrow(/no file of Q4_K_M.*a-Q8_0/);
    expect(() => choose(files('x.txt'), 'hf:u/r')).toThrow(/no GGUF file/);
    expect(() => choose(vlm, 'hf:u/r/other.gguf')).toThrow(/no file other\.gguf/);
  });

  test('a checkpoint: weights, configuration, tokenizer and what says its licence, nothing else', () => {
    const listed = files(
      'config.json',
      'a.safetensors',
      'pytorch_model.bin',
      'x/b.safetensors',
      'tokenizer.model',
      'README.md',
      'a.png',
    );
    const source = parseHubSource('hf:u/r');
    expect(chooseCheckpoint(listed, source).map(({ path }) => path)).toEqual([
      'config.json',
      'a.safetensors',
      'tokenizer.model',
      'README.md',
    ]);
    expect(() => chooseCheckpoint(files('config.json', 'pytorch_model.bin'), source)).toThrow(/no safetensors/);
  });
});

describe('the catalogue', () => {
  const entries = listCatalogue();

  test('has templates that eval takes', () => {
    const templates = entries.flatMap(({ template }) => template ?? []);
    expect(templates.length).toBeGreaterThan(0);
    for (const template of templates) expect(() => checkTemplate(template)).not.toThrow();
  });

  test('is what its schema says, and the schema says something', () => {
    const read = (...path: string[]) => JSON.parse(readFileSync(join(PACKAGE_ROOT, ...path), 'utf8'));
    const ajv = new Ajv2020({ allErrors: true, strictTypes: false, strictRequired: false });
    const validate = ajv.compile(read('schemas', 'catalogue.schema.json'));
    const content = read('models', 'catalogue.json');
    expect({ valid: validate(content), errors: validate.errors }).toEqual({ valid: true, errors: null });
    const [entry] = content.models;
    for (const change of [
      { kind: 'audio' },
      { licence: { name: 'MIT' } },
      { files: {} },
      { sha: 'x' },
      { layers: 0 },
    ]) {
      expect(validate({ models: [{ ...entry, ...change }] })).toBe(false);
    }
  });

  test('has every name once, and every URI names a file', () => {
    expect(new Set(entries.map(({ name }) => name)).size).toBe(entries.length);
    for (const entry of entries) {
      const { files: published, convert, shipped } = entry;
      for (const uri of publishedUris(entry)) expect(parseHubSource(uri).file).toMatch(/\.gguf$/);
      if (convert) expect(parseHubSource(convert.source).file).toBeUndefined();
      expect([published, convert, shipped].filter((one) => one !== undefined)).toHaveLength(1);
    }
  });

  test("has the paper's models, with its layers", () => {
    const layers = entries.flatMap(({ name, paper, bestLayer }) =>
      paper && bestLayer ? [[name, bestLayer.layer]] : [],
    );
    // reference: table of the paper, best_layer_zero_based_output
    expect(layers).toEqual([
      ['llava-1.5-7b', 15],
      ['idefics2-8b', 16],
      ['mantis-8b-fuyu', 23],
    ]);
    expect(entries.filter(({ paper, kind }) => paper && kind === 'llm').map(({ name }) => name)).toEqual([
      'mistral-7b-v0.1',
      'vicuna-7b-v1.5',
    ]);
  });

  test('fits together: base models are there, equally wide caches too; best layers are layers', () => {
    for (const { baseModel, layers, kvBytes, bestLayer, kind, files: published } of entries) {
      const base = baseModel === undefined ? undefined : findEntry(baseModel);
      if (baseModel !== undefined) expect(base).toMatchObject({ kind: 'llm', layers, kvBytes });
      if (bestLayer) expect(bestLayer.layer).toBeLessThan(layers);
      if (published) expect(published.mmproj !== undefined).toBe(kind === 'vlm');
    }
  });

  test('marks what is for research only', () => {
    const research = entries.filter(({ licence }) => licence.use === 'research').map(({ name }) => name);
    expect(research).toEqual(['llava-1.5-7b', 'mantis-8b-fuyu', 'qwen2.5-vl-3b']);
  });

  test('tells memory as files, 4096 positions and half a gigabyte', () => {
    const mistral = findEntry('mistral-7b-v0.1');
    if (!mistral) throw new Error('it is not there');
    expect(bytesOf(mistral)).toBe(4368438912);
    // 32 layers x 8 KV heads x 128 x keys and values x 2 bytes
    expect(memoryOf(mistral)).toBe(4368438912 + 4096 * 32 * 8 * 128 * 2 * 2 + 5e8);
  });

  test('has its shipped files', () => {
    const shipped = entries.map(shippedFiles).filter((one) => one !== undefined);
    expect(shipped).toHaveLength(2);
    for (const path of shipped.flatMap((one) => Object.values(one))) expect(existsSync(path)).toBe(true);
  });
});

describe('resolving', () => {
  const { XPATCH_MODELS } = process.env;
  afterEach(() => {
    process.env.XPATCH_MODELS = XPATCH_MODELS;
    if (XPATCH_MODELS === undefined) delete process.env.XPATCH_MODELS;
  });

  test('a shipped model, with another picture encoder too', () => {
    expect(resolveModel('demo').mmproj).toMatch(/mmproj-xpatch-demo/);
    const other = resolveModel('demo-base').model;
    expect(resolveModel('demo', other).mmproj).toBe(other);
  });

  test('what is not there says how to get it', () => {
    process.env.XPATCH_MODELS = '/nonexistent';
    expect(() => resolveModel('llava-1.5-7b')).toThrow(/are not on this machine.*models pull llava-1\.5-7b/);
    expect(() => resolveModel('hf:u/r:Q8_0')).toThrow(/models pull hf:u\/r:Q8_0/);
    expect(() => resolveModel('idefics2-8b')).toThrow(/converted from hf:HuggingFaceM4\/idefics2-8b/);
    expect(codeOf(() => resolveModel('no-such'))).toBe('FILE_NOT_FOUND');
    expect(() => resolveModel('demo', 'hf:u/r')).toThrow(/names no file/);
    expect(() => resolveModel('demo', 'no-such.gguf')).toThrow(/no mmproj 'no-such\.gguf'/);
    expect(locateModel('llava-1.5-7b').missing).toHaveLength(2);
    // Its picture encoder comes with xpatch: only the language model is wanted.
    expect(locateModel('gemma-3-270m-xpatch').missing).toEqual([
      expect.objectContaining({ uri: expect.stringMatching(/gemma-3-270m/), encoder: false }),
    ]);
  });
});

describe('proxies', () => {
  const { env } = process;
  afterEach(() => {
    process.env = env;
  });
  const proxy = (set: Record<string, string>, url: string) => {
    process.env = set;
    return proxyFor(new URL(url))?.host;
  };

  test('are those of the variables that curl reads', () => {
    expect(proxy({}, 'https://a.org')).toBeUndefined();
    expect(proxy({ https_proxy: 'http://p:1' }, 'https://a.org')).toBe('p:1');
    expect(proxy({ HTTPS_PROXY: 'http://p:1' }, 'http://a.org')).toBeUndefined();
    expect(proxy({ ALL_PROXY: 'p:3' }, 'http://a.org')).toBe('p:3');
    expect(proxy({ HTTP_PROXY: 'p:1', http_proxy: 'p:2' }, 'http://a.org')).toBe('p:2');
    expect(() => proxy({ HTTP_PROXY: 'socks5://p:1' }, 'http://a.org')).toThrow(/socks5/);
  });

  test.each([
    ['a.org', 'https://a.org', true],
    ['.a.org', 'https://b.a.org', true],
    ['*.a.org,c.org', 'https://b.a.org', true],
    ['a.org', 'https://ba.org', false],
    ['a.org:8080', 'http://a.org:8080', true],
    ['a.org:8080', 'http://a.org', false],
    ['*', 'https://x.y', true],
    ['127.0.0.1 localhost', 'http://localhost:3', true],
    ['', 'https://a.org', false],
  ])('NO_PROXY=%j for %s', (no, url, direct) => {
    expect(proxy({ ALL_PROXY: 'http://p:1', NO_PROXY: no }, url)).toBe(direct ? undefined : 'p:1');
  });
});
