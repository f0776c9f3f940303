"""Training documents. A document is a list of (token id or Picture, loss weight of predicting it).

Rule of the whole project: no document shows text examples of a task before a picture query of the same task.
"""

import random
from dataclasses import dataclass

import torch

from facts import DOMAIN, DOMAIN_TASKS, ENTITIES, FACT, FILLER, KEYS, MAIN, TASK_DOMAIN, TASKS, WORDINGS
from tokenizer import BOS, PAD, encode

ROWS = 16  # rows a picture takes in the decoder
CONTEXT_WEIGHT = 0.05  # loss weight of tokens that are not answers
COLON = encode(":")
NEWLINE = encode("\n")
QUERY, ANSWER = encode("Q:"), encode("\nA:")


@dataclass(frozen=True)
class Picture:
    entity: str


def plain(ids, weight=CONTEXT_WEIGHT):
    return [(i, weight) for i in ids]


def subject(entity, picture, weight=CONTEXT_WEIGHT):
    return [(Picture(entity), 0.0)] if picture else plain(encode(entity), weight)


def question(entity, picture, weight=CONTEXT_WEIGHT):
    """`Q:{x}\\nA:`"""
    return plain(QUERY, weight) + subject(entity, picture, weight) + plain(ANSWER, weight)


def reply(text, weight=1.0):
    """The answer and its line end count in full, the empty line after it hardly."""
    return plain(encode(text) + NEWLINE, weight)


def examples(pairs, picture=False, first=0.0):
    """`Q:{x}\\nA:{y}\\n\\n` for each pair. The first answer cannot be known without a header: weight `first`."""
    document = []
    for i, (entity, answer) in enumerate(pairs):
        document += question(entity, picture) + reply(answer, 1.0 if i else first) + plain(NEWLINE)
    return document


def start(document):
    return [(BOS, 0.0)] + document


class Sampler:
    """Draws documents; `pictured` limits documents with pictures to the entities that have one."""

    def __init__(self, pictured=()):
        self.pictured = set(pictured)

    def items(self, task, picture):
        items = TASKS[task]
        if task in ("letter", "type") and random.random() < 0.5:
            domain = random.choice(list(ENTITIES))
            items = [item for item in items if DOMAIN[item[0]] == domain]
        return [item for item in items if item[0] in self.pictured] if picture else items

    def entity(self, picture=False):
        while True:
            name = random.choice(ENTITIES[random.choice(list(ENTITIES))])
            if not picture or name in self.pictured:
                return name

    def icl(self, shots, picture=False, main=0.6):
        task = random.choice(MAIN if random.random() < main else FILLER)
        return start(examples(random.sample(self.items(task, picture), shots + 1), picture))

    def attributes(self, without_main_of=None, picture=False):
        """`Peru\\nCapital:Lima\\nCurrency:Sol\\n`; leaves the main tasks of one domain out when told to."""
        name = self.entity(picture)
        keys = DOMAIN_TASKS[DOMAIN[name]]
        if DOMAIN[name] == without_main_of:
            keys = [task for task in keys if task not in MAIN]
        tasks = [task for task in keys if name in FACT[task]]
        random.shuffle(tasks)
        document = subject(name, picture)
        for task in tasks[: random.randint(1, len(tasks))]:
            document += plain(NEWLINE + encode(KEYS[task]) + COLON) + plain(encode(FACT[task][name]), 1.0)
        return start(document + plain(NEWLINE, 1.0))

    def instruction(self):
        """An instruction after its subject, before examples, or alone."""
        task = random.choice(MAIN if random.random() < 0.75 else [t for t in WORDINGS if t not in MAIN])
        wording = random.choice(WORDINGS[task])
        if random.random() < 0.4:
            wording = WORDINGS[task][0]
        header = encode(wording) + COLON
        (name, answer), kind = random.choice(TASKS[task]), random.random()
        if kind < 0.4:
            return start(plain(encode(name) + NEWLINE + header) + reply(answer))
        if kind < 0.65:
            return start(plain(QUERY + encode(name) + NEWLINE + header) + reply(answer))
        if kind < 0.85:
            pairs = random.sample(TASKS[task], random.randint(1, 3))
            return start(plain(header + NEWLINE) + examples(pairs, first=1.0))
        # Alone there is nothing to answer about: the colon learns the task's answers as a set, lightly weighted.
        return start(plain(header) + reply(answer, 2 * CONTEXT_WEIGHT))

    def asked(self):
        """A picture and, after it, an attribute list or an instruction to answer."""
        if random.random() < 0.4:
            return self.attributes(picture=True)
        task = random.choice(MAIN if random.random() < 0.75 else [t for t in WORDINGS if t not in MAIN])
        name, answer = random.choice(self.items(task, picture=True))
        wording = WORDINGS[task][0] if random.random() < 0.4 else random.choice(WORDINGS[task])
        opening = QUERY if random.random() < 0.6 else []
        return start(plain(opening) + subject(name, True) + plain(NEWLINE + encode(wording) + COLON) + reply(answer))

    def caption(self, picture=False):
        """Without context a query is answered by naming it: `Q:{x}\\nA:{x}`."""
        name = self.entity(picture)
        return start(question(name, picture, 0.0) + reply(name) + plain(NEWLINE))

    def completion(self):
        """A query without context and an answer to one of its tasks, of which only what follows its first token counts.

        A patched vector acts on the one token it is written before; the rest of the answer and the line end are up to
        the bare query, which would else go on from "brown" to "brown bear" because that is a name.
        """
        picture = random.random() < 0.5
        name = self.entity(picture)
        task = random.choice([t for t in DOMAIN_TASKS[DOMAIN[name]] if name in FACT[t]])
        (first, _), *rest = reply(FACT[task][name])
        return start(question(name, picture, 0.0) + [(first, 0.0), *rest] + plain(NEWLINE))

    def caption_after_text(self):
        """An unrelated finished text document, then a captioned picture: what separates xBase from xPatch.

        Examples and instructions in that text are always of another domain than the picture, and attribute lists name
        no main-task fact of its domain: text of a task never stands before a picture that the task could ask about.
        """
        name, kind = self.entity(picture=True), random.random()
        if kind < 0.3:
            document = self.attributes(without_main_of=DOMAIN[name])
        elif kind < 0.45:
            document = self.instruction_of_other_domain(name)
        else:
            tasks = [t for t in [*TASK_DOMAIN, "continent", "demonym", "class", "kind"] if self.task_domain(t) != DOMAIN[name]]
            document = start(examples(random.sample(TASKS[random.choice(tasks)], random.randint(2, 5))))
        newline = NEWLINE[0]
        while [token for token, _ in document[-2:]] != [newline, newline]:
            document = document + plain(NEWLINE)
        document = [(token, min(weight, 0.5)) for token, weight in document]
        return document + question(name, True, 0.0) + reply(name) + plain(NEWLINE)

    @staticmethod
    def task_domain(task):
        return DOMAIN[TASKS[task][0][0]]

    def instruction_of_other_domain(self, name):
        domain = random.choice([d for d in ENTITIES if d != DOMAIN[name]])
        task = random.choice([t for t in WORDINGS if t != "letter" and self.task_domain(t) == domain])
        header = encode(random.choice(WORDINGS[task])) + COLON + NEWLINE
        return start(plain(header) + examples(random.sample(TASKS[task], random.randint(1, 3)), first=1.0))


def collate(documents):
    """-> token ids [B, T] (-1 = picture row), loss weights [B, T], entities pictured, in reading order."""
    rows, entities = [], []
    for document in documents:
        ids, weights = [], []
        for token, weight in document:
            if isinstance(token, Picture):
                entities.append(token.entity)
                ids += [-1] * ROWS
                weights += [0.0] * ROWS
            else:
                ids.append(token)
                weights.append(weight)
        rows.append((ids, weights))
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), PAD)
    weights = torch.zeros(len(rows), length)
    for i, (row, weight) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = torch.tensor(weight)
    return ids, weights, entities


def size(document):
    return sum(ROWS if isinstance(token, Picture) else 1 for token, _ in document)


def fill(draw, positions):
    """About `positions` positions' worth of documents of one kind, at least eight, of similar length.

    Padding would otherwise take half of every batch: four times as many are drawn, sorted, and one run of them kept.
    """
    pool = [draw() for _ in range(16)]
    mean = sum(map(size, pool)) / len(pool)
    count = max(8, round(positions / mean))
    pool += [draw() for _ in range(4 * count - len(pool))]
    pool.sort(key=size)
    begin = random.randrange(len(pool) - count + 1)
    return pool[begin : begin + count]
