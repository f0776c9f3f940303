"""What the two language stages share: schedule, one optimisation step, teacher-forced accuracy."""

import random

import torch
import torch.nn.functional as F

from documents import collate, examples, fill, start
from facts import TASKS


def rate(done, step, warmup):
    """Factor on the learning rate: linear warm-up, constant to half of the run, then linear to 3 %."""
    return min(1.0, (step + 1) / warmup) * (1.0 if done < 0.5 else max(0.03, (1 - done) / 0.5))


def text_documents(sampler, tokens, attributes=0.25, instructions=0.15, captions=0.07):
    kind = random.random()
    if kind < attributes:
        return fill(sampler.attributes, tokens)
    if kind < attributes + instructions:
        return fill(sampler.instruction, tokens)
    if kind < attributes + instructions + captions:
        return fill(sampler.caption, tokens)
    shots = random.randint(2, 6)
    return fill(lambda: sampler.icl(shots), tokens)


def loss_of(decoder, embeddings, ids, weights):
    """Weighted mean cross-entropy of predicting ids[:, 1:] from embeddings of ids[:, :-1]."""
    hidden, _ = decoder(embeddings)
    target, weight = ids[:, 1:], weights[:, 1:]
    counted = weight > 0
    losses = F.cross_entropy(decoder.logits(hidden[counted]), target[counted], reduction="none")
    return (losses * weight[counted]).sum() / weight[counted].sum()


def step_with(optimizer, loss, parameters):
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


@torch.no_grad()
def last_answer_accuracy(decoder, embed, documents):
    """Share of documents whose last weighted run of tokens (the last answer) is predicted token by token."""
    ids, weights, entities = collate(documents)
    guess = decoder.logits(decoder(embed(ids, entities))[0]).argmax(-1)
    right = 0
    for row in range(len(documents)):
        counted = (weights[row] >= 1).nonzero().flatten().tolist()
        end = counted[-1]
        begin = end
        while begin - 1 in counted:
            begin -= 1
        right += bool((guess[row, begin - 1 : end - 1] == ids[row, begin:end]).all())
    return right / len(documents)


def icl_accuracy(decoder, embed, sampler, tasks, picture=False, count=40, shots=4):
    scores = {}
    for task in tasks:
        items = [item for item in TASKS[task] if not picture or item[0] in sampler.pictured]
        documents = [start(examples(random.sample(items, shots + 1), picture)) for _ in range(count)]
        scores[task] = round(last_answer_accuracy(decoder, embed, documents), 2)
    return scores
