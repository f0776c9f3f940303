"""Makes tests/fixtures/tokenizers.json: small tokenizers and the ids that Hugging Face's own library gives for hostile texts.

    python tests/reference/tokenizers_json.py
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import __version__ as version

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'tokenizers.json'
BYTES = [(f'<0x{byte:02X}>', 0.0) for byte in range(256)]
SPECIALS = ['<unk>', '<s>', '</s>']
LETTERS = [(letter, -4.0 - 0.05 * i) for i, letter in enumerate('etaoinshrdlucmfQA:.|<>x0141')]
# Ties, pieces inside pieces, a piece with a space in it, one outside the first plane, one of two code points.
PIECES = [
    ('▁', -2.0), ('▁▁', -3.0), ('he', -5.0), ('her', -5.0), ('re', -5.0), ('here', -10.0), ('▁the', -4.5), ('the▁c', -6.0),
    ('🙂', -7.0), ('e\u0301', -6.5), ('aa', -8.0), ('a', -4.0), ('|NEWLINE|', 0.0), ('image', -5.5),
]
TEXTS = [
    '', ' ', '   ', '\n', '\t\r\n', '\0', 'here', 'there here', ' the  cat   ', 'Q:Sweden\nA:', 'aaaa', 'aaaaa',
    '▁', 'a▁b', '▁▁▁▁▁', '🙂🙂 🙂', '👨‍👩‍👧', 'e\u0301é', '\u202eabc\u202c', '\ufeffhe', '\ufffd', '𝒳', 'ß ﬁ Å', '日本語 テキスト', 'مرحبا',
    '<s>', 'he<s>re', ' <s> ', '<s></s><s>', '<unk>', 'z<unk>z', 'zz<unk>', '<0x41>', '<0x0A>', '<0x4', '<S>', '|NEWLINE|', 'x|IMAGE|y', '|IMAGE||IMAGE|',
    ' |IMAGE| ', '|IMAGE', 'image 0: ', '\u2028', '\u00a0here', 'constructor __proto__ toString', 'h' * 300, '<s' * 40,
]


def unigram(byte_fallback, normalized, metaspace=None):
    known = {piece for piece, _ in BYTES + PIECES}
    vocab = [(token, 0.0) for token in SPECIALS] + BYTES + PIECES
    vocab += [(letter, score) for i, (letter, score) in enumerate(LETTERS)
              if letter not in known and letter not in {other for other, _ in LETTERS[:i]}]
    tokenizer = Tokenizer(models.Unigram(vocab, 0, byte_fallback=byte_fallback))
    return finish(tokenizer, normalized, metaspace)


def bpe(byte_fallback, normalized, metaspace=None):
    vocab = SPECIALS + [byte for byte, _ in BYTES] + sorted(set('▁etaoinshrdlucmfQA:.|<>x014abyz🙂'))
    merges = [('h', 'e'), ('r', 'e'), ('he', 're'), ('t', 'he'), ('▁', 'the'), ('▁', '▁'), ('▁▁', '▁▁'), ('a', 'a'), ('aa', 'aa'), ('n', 's')]
    vocab += [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocab)}, merges, unk_token='<unk>', fuse_unk=True, byte_fallback=byte_fallback))
    return finish(tokenizer, normalized, metaspace)


def finish(tokenizer, normalized, metaspace):
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=metaspace, split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tokenizer.decoder = decoders.ByteFallback()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=normalized) for token in SPECIALS])
    tokenizer.add_special_tokens([AddedToken('|IMAGE|', special=True, normalized=False)])
    return tokenizer


KINDS = {
    'unigram': unigram(True, False),
    'unigram, normalised specials': unigram(True, True),
    'unigram without bytes': unigram(False, False),
    'unigram, metaspace always': unigram(True, False, 'always'),
    'unigram, metaspace first': unigram(True, False, 'first'),
    'unigram, metaspace never': unigram(True, False, 'never'),
    'bpe': bpe(True, False),
    'bpe, normalised specials': bpe(True, True),
    'bpe, metaspace first': bpe(True, False, 'first'),
}

kinds = [
    {
        'name': name,
        'nVocab': tokenizer.get_vocab_size(),
        'json': json.loads(tokenizer.to_str()),
        'ids': [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS],
    }
    for name, tokenizer in KINDS.items()
]
OUT.write_text(json.dumps({'madeWith': f'tokenizers {version}', 'texts': TEXTS, 'kinds': kinds}, separators=(',', ':')) + '\n')
