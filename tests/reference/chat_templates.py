"""Writes tests/fixtures/chat-templates.json: what transformers' apply_chat_template makes of messages, for templates of our
own in the style of common families. Run: python tests/reference/chat_templates.py
"""
import json
from pathlib import Path

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

CHATML = """{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif -%}
{%- for m in messages -%}
    {{- '<|im_start|>' ~ m['role'] ~ '\\n' ~ m.content ~ '<|im_end|>' ~ '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

# Headers, trimmed contents, BOS, a list of tools that is not there.
HEADERS = """{{- bos_token }}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- set said = namespace(first=true) %}
{%- for m in messages %}
    {%- if tools is not none and said.first %}{{ raise_exception('tools') }}{% endif %}
    {{- '<|header|>' + m['role'] + '<|/header|>\\n\\n' + m['content'] | trim + '<|eot|>' }}
    {%- set said.first = false %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
"""

# Square brackets, turns that must alternate, no system message.
BRACKETS = """{{ bos_token }}{% for m in messages %}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
    {{ raise_exception('Roles must take turns, beginning with user.') }}
{%- endif -%}
{%- if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}
{%- elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant may speak.') }}{% endif %}
{%- endfor %}"""

# Another name for the assistant, the system message in front of the first one, texts or parts.
TURNS = """{{ bos_token }}
{%- set lead = '' -%}
{%- set talk = messages -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set lead = messages[0]['content'] + '\\n\\n' -%}
    {%- set talk = messages[1:] -%}
{%- endif -%}
{%- for m in talk -%}
    {%- set who = 'model' if m['role'] == 'assistant' else m['role'] -%}
    {{ '<start_of_turn>' + who + '\\n' + (lead if loop.first else '') }}
    {%- if m['content'] is string -%}
        {{ m['content'] | trim }}
    {%- elif m['content'] is iterable -%}
        {%- for part in m['content'] -%}
            {%- if part['type'] == 'image' -%}{{ '<start_of_image>' }}
            {%- elif part['type'] == 'text' -%}{{ part['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""

# A picture between two tokens, counted on request.
VISION = """{% set n = namespace(value=0) %}{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}<|im_end|>
{% else %}{% for part in m['content'] %}{% if part['type'] == 'image' or 'image_url' in part %}{% set n.value = n.value + 1 %}{% if count %}Picture {{ n.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Parts only; what stands before a message depends on whether it begins with a picture.
PARTS = """<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}
{%- if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}
{%- for part in m['content'] %}
{%- if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}
{%- endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

# Thoughts before </think> are left out of earlier turns.
THOUGHTS = """{% for m in messages %}
{%- set content = m.content %}
{%- if m.role == 'assistant' and '</think>' in content %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' if add_generation_prompt }}"""

FAMILIES = {
    'chatml': (CHATML, ['<|im_start|>', '<|im_end|>'], None),
    'headers': (HEADERS, ['<|header|>', '<|/header|>', '<|eot|>'], None),
    'brackets': (BRACKETS, [], None),
    'turns': (TURNS, ['<start_of_turn>', '<end_of_turn>', '<start_of_image>'], '<start_of_image>'),
    'vision': (VISION, ['<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|image_pad|>', '<|vision_end|>'],
               '<|vision_start|><|image_pad|><|vision_end|>'),
    'parts': (PARTS, ['<|im_start|>', '<end_of_utterance>', '<image>'], '<image>'),
    'thoughts': (THOUGHTS, ['<|im_start|>', '<|im_end|>'], None),
}

SYSTEM = {'role': 'system', 'content': 'Be brief.'}
PICTURE = {'type': 'image'}
TALKS = {
    'question': [{'role': 'user', 'content': 'What is a fjord?'}],
    'spaces': [{'role': 'user', 'content': '  What\n\nis it? \n'}],
    'system': [SYSTEM, {'role': 'user', 'content': 'Why?'}],
    'turns': [
        {'role': 'user', 'content': 'Grüße, 日本!'},
        {'role': 'assistant', 'content': '<think>\nhm\n</think>\n\nGood day.'},
        {'role': 'user', 'content': '{{ 1 + 1 }} {% if %}'},
    ],
    'picture': [{'role': 'user', 'content': [PICTURE, {'type': 'text', 'text': 'What is this?'}]}],
    'pictures': [
        {'role': 'user', 'content': [{'type': 'text', 'text': 'One: '}, PICTURE, {'type': 'text', 'text': ' two: '}, PICTURE]},
        {'role': 'assistant', 'content': 'Two flags.'},
        {'role': 'user', 'content': [PICTURE, PICTURE, {'type': 'text', 'text': 'And these?'}]},
    ],
}


def typed(messages):
    """Every content as a list of parts, as templates without texts need it."""
    as_parts = lambda c: c if isinstance(c, list) else [{'type': 'text', 'text': c}]
    return [{**m, 'content': as_parts(m['content'])} for m in messages]


def main():
    special = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({'<unk>': 0}, unk_token='<unk>')), **special)
    families = []
    for name, (template, control, picture) in FAMILIES.items():
        cases = []
        for talk, messages in TALKS.items():
            if picture is None and any(isinstance(m['content'], list) for m in messages):
                continue
            given = typed(messages) if name == 'parts' else messages
            try:
                text = tokenizer.apply_chat_template(given, chat_template=template, tokenize=False, add_generation_prompt=True)
                cases.append({'name': talk, 'messages': messages, 'text': text})
            except Exception as error:  # what the template itself refuses
                cases.append({'name': talk, 'messages': messages, 'refused': str(error)})
        families.append({'name': name, 'template': template, 'control': [*special.values(), *control], 'picture': picture,
                         'cases': cases})
    out = {'transformers': transformers.__version__, 'names': special, 'families': families}
    path = Path(__file__).parent.parent / 'fixtures' / 'chat-templates.json'
    path.write_text(json.dumps(out, indent=1, ensure_ascii=False) + '\n')


main()
