"""The demo tokenizer: GPT-2 byte-level BPE whose merges spell whole words only.

Answers, attribute keys and instruction words are single tokens; entity names are not in the vocabulary, so they fall
back to characters. That is what makes task vectors exist in so small a model: resolving letters into an entity takes
the first blocks, so the last position holds only the task there.

llama.cpp looks a symbol that is not in the vocabulary up *per UTF-8 byte*, which silently drops a non-ASCII symbol such
as GPT-2's space 'Ġ'. Merges are therefore learned on word bodies only, and ('Ġ', body) merges come last and exist only
where their result is a token: every symbol that can arise is a token or plain ASCII. `encode` raises if one is not.
"""

import collections

import regex

from facts import ENTITIES, FACT, HELD_OUT_WORDINGS, KEYS, WORDINGS

PIECE = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SPECIAL = ["<s>", "</s>", "<pad>"]
BOS, EOS, PAD = 0, 1, 2
SPACE = "Ġ"


def _byte_symbols():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {**{byte: chr(byte) for byte in visible}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}


BYTE_SYMBOL = _byte_symbols()


def symbols(text):
    return "".join(BYTE_SYMBOL[byte] for byte in text.encode())


def pieces(text):
    return [symbols(piece) for piece in PIECE.findall(text)]


def _vocabulary_words():
    """Words of answers, keys and instructions, less what would make an entity name a row of whole words."""
    answers = [value for task in FACT if task != "letter" for value in FACT[task].values()]
    wordings = [w for group in WORDINGS.values() for w in group] + list(HELD_OUT_WORDINGS.values())
    words = {p for text in [*answers, *KEYS.values(), *wordings] for p in pieces(text) if len(p) > 1}
    for names in ENTITIES.values():
        for name in names:
            parts = pieces(name)
            if all(part in words for part in parts):
                words.discard(parts[-1])
    return sorted(words)


def _learn_merges(words):
    bodies = sorted({w.removeprefix(SPACE) for w in words})
    segments = {body: list(body) for body in bodies if len(body) > 1}
    merges = []
    while True:
        counts = collections.Counter(pair for s in segments.values() for pair in zip(s, s[1:]))
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        segments = {body: _merge(s, best) for body, s in segments.items()}
    return merges + [(SPACE, w[1:]) for w in words if w.startswith(SPACE)]


def _merge(segment, pair):
    merged, i = [], 0
    while i < len(segment):
        if tuple(segment[i : i + 2]) == pair:
            merged.append(segment[i] + segment[i + 1])
            i += 2
        else:
            merged.append(segment[i])
            i += 1
    return merged


WORDS = _vocabulary_words()
TOKENS = SPECIAL + [BYTE_SYMBOL[byte] for byte in range(256)] + WORDS
MERGES = _learn_merges(WORDS)
ID = {token: i for i, token in enumerate(TOKENS)}
_RANK = {pair: i for i, pair in enumerate(MERGES)}
_cache = {}


def _encode_piece(piece):
    segment = list(piece)
    while True:
        ranked = [(_RANK[pair], pair) for pair in zip(segment, segment[1:]) if pair in _RANK]
        if not ranked:
            break
        segment = _merge(segment, min(ranked)[1])
    ids = []
    for symbol in segment:
        if symbol in ID:
            ids.append(ID[symbol])
        elif symbol.isascii():
            ids += [ID[character] for character in symbol]
        else:
            raise ValueError(f"llama.cpp would drop the symbol {symbol!r} of {piece!r}")
    return ids


def encode(text):
    """Token ids of a text, without BOS."""
    if text not in _cache:
        _cache[text] = [i for piece in pieces(text) for i in _encode_piece(piece)]
    return _cache[text]


_SYMBOL_BYTE = {symbol: byte for byte, symbol in BYTE_SYMBOL.items()}


def decode(ids):
    text = "".join(TOKENS[i] for i in ids if i >= len(SPECIAL))
    return bytes(_SYMBOL_BYTE[symbol] for symbol in text).decode(errors="replace")


def check():
    """Every word is one token, and every string training or the tasks use survives a round trip."""
    for word in WORDS:
        if _encode_piece(word) != [ID[word]]:
            raise ValueError(f"{word!r} is not one token")
    texts = [t for task in FACT for pair in FACT[task].items() for t in pair] + list(KEYS.values())
    texts += [w for group in WORDINGS.values() for w in group] + list(HELD_OUT_WORDINGS.values())
    texts += ["Español, naïve café — “quotes” 1234 tabs\tand\r\nlines  two spaces 日本 🦁", "What is on top of the meat?"]
    for text in texts:
        for framed in (text, f"Q:{text}\nA:", f"{text}:\n", f" {text}"):
            if decode(encode(framed)) != framed:
                raise ValueError(f"{framed!r} does not survive: {decode(encode(framed))!r}")
    return len(texts) * 4


if __name__ == "__main__":
    print("strings checked", check(), "vocabulary", len(TOKENS), "merges", len(MERGES))
    lengths = [len(encode(name)) for names in ENTITIES.values() for name in names]
    print("tokens per entity name: mean", sum(lengths) / len(lengths), "min", min(lengths), "max", max(lengths))
    print([(n, [TOKENS[i] for i in encode(n)]) for g in ENTITIES.values() for n in g if len(encode(n)) <= 3])
