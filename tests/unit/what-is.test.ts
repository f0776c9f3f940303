// What people hand over by mistake is named, with the way out.
import { gzipSync } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { parseJson } from '../../src/util/json.js';
import { closestTo } from '../../src/util/nearest.js';
import { type Wanted, whatAre, whatIs } from '../../src/util/what-is.js';

const latin = (text: string) => Buffer.from(text, 'latin1');
const safetensors = (() => {
  const header = JSON.stringify({ a: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, Buffer.from(header), Buffer.alloc(4)]);
})();
const gguf = (big: boolean) => {
  const version = Buffer.alloc(24);
  if (big) version.writeUInt32BE(3);
  else version.writeUInt32LE(3);
  return Buffer.concat([latin('GGUF'), version]);
};

describe('of a file', () => {
  test.each<[string, Buffer, RegExp]>([
    ['nothing', Buffer.alloc(0), /it is empty/],
    ['an LFS pointer', latin('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n'), /git lfs pull/],
    ['a web page', latin('\r\n<!DOCTYPE HTML><html>'), /web page .*Download/],
    ['a web page with a byte order mark', Buffer.from('\uFEFF<html lang="en">'), /web page/],
    ['a ZIP', latin('PK\x03\x04rest'), /ZIP archive. Unpack/],
    ['a PyTorch checkpoint', latin('PK\x03\x04\0\0archive/data.pkl'), /PyTorch .*safetensors/],
    ['an old PyTorch checkpoint', latin('\x80\x02\x8a'), /pickle/],
    ['a tar.gz', gzipSync('x'), /tar -xzf/],
    ['a tar', Buffer.concat([Buffer.alloc(257, 'a'), latin('ustar\0')]), /tar archive/],
    ['NumPy', latin('\x93NUMPY\x01'), /NumPy/],
    ['GGML', latin('tjgg\x03\0\0\0'), /older than GGUF/],
    ['a big-endian GGUF', gguf(true), /big-endian/],
    ['a safetensors file', safetensors, /models convert/],
    ['zeros', Buffer.alloc(4096), /begins with zeros/],
    ['text', Buffer.from('Grüß Gott\n'), /it is a text file/],
  ])('%s', (_, bytes, says) => expect(whatAre(bytes, 'GGUF')).toMatch(says));

  test.each<[Wanted, Buffer]>([
    ['GGUF', gguf(false)],
    ['safetensors', safetensors],
    ['JSON', latin('[{"input": 1,}]')],
    ['YAML', latin('{"preset": "main"')],
    ['YAML', latin('preset: main')],
    ['picture', latin('\x89PNG\r\n\x1a\n')],
    ['picture', latin('<svg>')],
    ['text', Buffer.from('ü')],
    ['text', latin('{{ bos_token }}{% for message in messages %}')],
    ['text', latin('{{- bos_token -}}')],
    ['text', latin('{%- if x %}')],
    ['text', latin('{# what it is #}')],
    ['text', latin('[{{ role }}]')],
    ['text', latin('[INST] {{ text }}')],
    ['JSON', latin('BMI,output\n20,normal\n')],
    ['text', latin('MZ is no program')],
  ])('that is a broken %s nothing is said', (wanted, bytes) => expect(whatAre(bytes, wanted)).toBeUndefined());

  test('of another kind than is wanted', () => {
    for (const json of ['{"a": 1}', ' {\n}', '[{"a": 1}]', '[1, 2]', '[[]]', '[]'])
      expect(whatAre(latin(json), 'text')).toMatch(/it is JSON\. Name a text file/);
    expect(whatAre(gguf(false), 'safetensors')).toMatch(/GGUF file: a model, which -m takes/);
    expect(whatAre(latin('{"a":1}\n{"b":2}\n'), 'JSON')).toMatch(/JSON Lines.*jq -s/);
    expect(whatAre(latin('\xff\xfe\0a'), 'YAML')).toMatch(/not text in UTF-8/);
  });

  test('every answer names a way out', () => {
    const others = [
      latin('%PDF-1.7'),
      latin('\x7fELF'),
      latin('\x89PNG'),
      latin('{"a": 1}'),
      Buffer.from('Grüß Gott\n'),
    ];
    for (const wanted of ['GGUF', 'safetensors'] as const) {
      for (const bytes of others) expect(whatAre(bytes, wanted)).toMatch(/^it is [^.]+\. Name a \.\w+ file/);
    }
    expect(whatAre(latin('%PDF-1.7'), 'picture')).toMatch(/^it is a PDF\. Name a PNG, /);
    expect(whatIs('.', 'GGUF')).toBe('it is a folder. Name a file in it');
  });

  test('any beginning of any of them is looked at without harm', () => {
    for (const bytes of [safetensors, gguf(true), latin('PK\x03\x04'), Buffer.from('[1]\n[2]')])
      for (let n = 0; n <= bytes.length; n++) whatAre(bytes.subarray(0, n));
  });
});

describe('JSON', () => {
  test.each<[string, string, RegExp]>([
    ['cut off', '{"a":', /is not JSON in UTF-8/],
    ['nested without end', '['.repeat(1e6) + ']'.repeat(1e6), /nested more than 100 deep/],
    ['of objects without end', `${'{"a":'.repeat(1e5)}1${'}'.repeat(1e5)}`, /nested more than 100 deep/],
    ['with a key twice', '{"a":[{"b":1}],"c":"\\"","a":2}', /has the key "a" twice/],
    ['with a key twice, once escaped', '{"a":1,"\\u0061":2}', /has the key "a" twice/],
  ])('%s is refused', (_, text, says) => expect(() => parseJson(Buffer.from(text))).toThrow(says));

  test('is read as JSON.parse does', () => {
    const text = '{"a":{"a":["a",1e400,-0,""]},"b":null}';
    expect(parseJson(Buffer.from(text))).toEqual(JSON.parse(text));
  });
});

test('a mistyped name is told from one that is near none', () => {
  const names = ['demo', 'llava-1.5-7b', 'qwen2-vl-2b', 'qwen2.5-vl-3b'];
  expect(closestTo('llava-1.5-7', names)).toBe('llava-1.5-7b');
  expect(closestTo('LLaVA1.5-7B', names)).toBe('llava-1.5-7b');
  expect(closestTo('qwen2.5vl-3b', names)).toBe('qwen2.5-vl-3b');
  expect(closestTo('dmeo', names)).toBe('demo');
  expect(closestTo('mistral', names)).toBeUndefined();
  expect(closestTo('x'.repeat(1e6), names)).toBeUndefined();
});
