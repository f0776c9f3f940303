"""Makes tests/fixtures/answers.json: tokens and log-likelihoods of answers behind queries, by transformers in float32.

    python tests/reference/answers.py

The models are those of make.py, whose seeds they share: their tokenizers are a byte-level BPE, a BPE of SentencePiece's kind, and a
Unigram that is read from tokenizer.json. What a template writes is spelled out here, chats by transformers' own `apply_chat_template`; nothing of the product has a part in it.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('HF_HUB_OFFLINE', '1')
sys.dont_write_bytecode = True

import torch
import transformers
from transformers import PersimmonConfig, PersimmonForCausalLM, PreTrainedTokenizerFast

import decoders
import fuyu
import idefics2
import tiny

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'answers.json'

ITEMS = [
    ('Sweden', 'Stockholm'), ('Norway', 'Oslo'), ('five', '5'), ('a dozen and thirty', '42'), ('Japan', '東京'),
    ('the animal', 'a small horse'), ('the food', 'red, and sweet'), ('a face', '🙂'), ('France', 'Paris'),
    # A blank before these becomes a part of their first token.
    ('a noun', 'capital'), ('an article', 'the country'),
]

# name: (what an example is, what a query is); the answer is the rest.
PLAIN = {
    'glued': ('Q:{input}\nA:{output}\n\n', 'Q:{input}\nA:'),
    'blank': ('Q: {input}\nA: {output}\n\n', 'Q: {input}\nA:'),
    'line break': ('{input} is\n{output};', '{input} is'),
    'blank in the query': ('Q: {input}\nA: {output}\n\n', 'Q: {input}\nA: '),
}

# name: a template in Jinja.
CHATS = {
    'chat with a blank': "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'] + ' ASSISTANT:' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
    'chat with line breaks': "{{ bos_token }}{% for m in messages %}{{ '### ' + m['role'] + ':\\n\\n' + m['content'] + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:' }}{% endif %}",
    'chat of marks': "{% for m in messages %}{{ '<s>' + m['role'] + '\\n' + m['content'] + '</s>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}",
}


def byte_level(scratch):
    tokenizer = tiny.save_tokenizer(scratch, decoders.COMMON['vocab_size'], ['<s>', '</s>'], add_bos=True)
    return decoders.llama(), tokenizer


def sentence_piece(scratch):
    plain = idefics2.build_tokenizer()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token='<s>', eos_token='</s>', unk_token='<unk>')
    return idefics2.build(plain), wrapped


def unigram(scratch):
    plain, _ = fuyu.build_tokenizer()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token='<s>', eos_token='</s>', unk_token='<unk>')
    config = PersimmonConfig(**fuyu.text_settings(plain.get_vocab_size()))
    return tiny.randomise(PersimmonForCausalLM(config), seed=41), wrapped


MODELS = {'llama': byte_level, 'idefics2': sentence_piece, 'persimmon': unigram}


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def spans_of(tokenizer, text, encoded):
    """Which characters each token covers. For bytes that stand for characters without a piece, tokenizers gives all of a run together."""
    spans, pieces = list(encoded['offset_mapping']), tokenizer.convert_ids_to_tokens(encoded['input_ids'])
    i = 0
    while i < len(spans):
        run = i
        while run < len(spans) and spans[run] == spans[i] and pieces[run].startswith('<0x'):
            run += 1
        begin, end = spans[i]
        owners = [at for at in range(begin, end) for _ in text[at].encode()]
        if run - i == len(owners):
            spans[i:run] = [(at, at + 1) for at in owners]
        i = max(run, i + 1)
    return spans


def score(model, tokenizer, bos, query, lead, answer):
    """The tokens behind the query, their log-likelihood, and the first of them that covers a character of the answer."""
    before = tokenizer(query, add_special_tokens=False)['input_ids']
    encoded = tokenizer(query + lead + answer, add_special_tokens=False, return_offsets_mapping=True)
    whole, spans = encoded['input_ids'], spans_of(tokenizer, query + lead + answer, encoded)
    start = common(before, whole)
    if start < len(before):
        return {'merged': True}
    first = next(i for i in range(start, len(whole)) if spans[i][1] > len(query + lead)) - start
    ids = [*bos, *whole]
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    at = len(bos) + start
    steps = [logs[i - 1, ids[i]].item() for i in range(at, len(ids))]
    row = logs[at + first - 1]
    return {
        'tokens': whole[start:],
        'first': first,
        'logLikelihood': round(sum(steps), 5),
        'probability': float(f'{row[whole[start + first]].exp().item():.6g}'),
        'rank': int((row > row[whole[start + first]]).sum()),
    }


def cases(tokenizer):
    """(name, template as the product gets it, query and lead of an input, whether BOS is put in front)"""
    for name, (example, query) in PLAIN.items():
        def texts(item, example=example, query=query):
            shown = query.replace('{input}', item)
            head = example.split('{output}')[0].replace('{input}', item)
            assert head.startswith(shown)
            return shown, head[len(shown):]
        yield name, {'example': example, 'query': query, 'stop': example.split('{output}')[1]}, texts, True
    for name, source in CHATS.items():
        def texts(item, source=source):
            def render(messages, generate):
                return tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=generate)
            asked = [{'role': 'user', 'content': item}]
            shown = render(asked, True)
            whole = render([*asked, {'role': 'assistant', 'content': 'ANSWER'}, *asked], True)
            head = whole.split('ANSWER')[0]
            assert head.startswith(shown)
            return shown, head[len(shown):]
        yield name, source, texts, False


def main():
    torch.set_num_threads(1)
    found = {}
    for name, make in MODELS.items():
        with tempfile.TemporaryDirectory() as scratch:
            model, tokenizer = make(Path(scratch))
        found[name] = []
        for case, template, texts, with_bos in cases(tokenizer):
            bos = [tokenizer.bos_token_id] if with_bos else []
            answers = []
            for item, answer in ITEMS:
                query, lead = texts(item)
                # Where the expected answer stands among all: every one of them behind this query.
                scored = {other: score(model, tokenizer, bos, query, lead, other) for _, other in ITEMS}
                own = scored[answer]
                if not any(one.get('merged') for one in scored.values()):
                    own['answerRank'] = sum(one['logLikelihood'] > own['logLikelihood'] for one in scored.values())
                answers.append({'query': query, 'lead': lead, **own})
            found[name].append({'name': case, 'template': template, 'answers': answers})
    content = {
        'madeWith': f'torch {torch.__version__}, transformers {transformers.__version__}',
        'items': [{'input': item, 'output': answer} for item, answer in ITEMS],
        'models': found,
    }
    OUT.write_text(json.dumps(content, ensure_ascii=False, indent=None, separators=(', ', ': ')).replace('{"query"', '\n{"query"') + '\n')


if __name__ == '__main__':
    main()
