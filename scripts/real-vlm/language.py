"""The frozen language model, and the captions that the projector is trained on: names in many wordings, and nothing else."""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from files import save

HERE = Path(__file__).resolve().parent
# After the picture. What comes before {name} is given; the name and what follows it are to be predicted.
WORDINGS = [
    " {name}\n", "\n{name}\n", ": {name}\n", " This is {name}.", " It shows {name}.", " A picture of {name}.",
    "\nThis picture shows {name}.", " ({name})", " = {name}\n", "\nName: {name}\n", " Here we see {name}.",
    " Shown: {name}.", "\nIn the picture: {name}.", " is {name}.", ", which is {name}.", " It is called {name}.",
    " stands for {name}.", " - {name}\n", "\n\n{name}\n\n", " means {name}.", ' "{name}"', " We call it {name}.",
]  # fmt: skip
SENTENCES = (HERE / "sentences.txt").read_text().splitlines()
NEGATIVES = 4096
TOGETHER = 8  # sequences in one pass of the language model, of about one length


class Language:
    def __init__(self, gguf, cache):
        """`cache`: folder for the model in transformers' own form, since reading a tokenizer out of a GGUF takes minutes."""
        gguf, cache = Path(gguf).resolve(), Path(cache)
        source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        if not (cache / "tokenizer.json").exists():
            AutoTokenizer.from_pretrained(**source).save_pretrained(cache)
        self.tokenizer = AutoTokenizer.from_pretrained(cache)
        if not (cache / "model.pt").exists():
            model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
            model.config.save_pretrained(cache)
            save(cache / "model.pt", model.state_dict())
        self.model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(cache), dtype=torch.float32).eval()
        self.model.load_state_dict(torch.load(cache / "model.pt", weights_only=True))
        self.model.requires_grad_(False)
        self.width = self.model.config.hidden_size
        self.head = self.model.get_output_embeddings().weight
        self.begin = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]

    def tokens(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def embed(self, ids):
        """Embeddings as they enter the first block (Gemma's are scaled)."""
        return self.model.get_input_embeddings()(torch.as_tensor(ids))

    def name_rows(self, names, rows):
        """[names, rows, width]: the embeddings of each name's tokens, stretched over the rows of a picture."""
        result = []
        for name in names:
            ids = self.tokens(" " + name)
            result.append(self.embed([ids[row * len(ids) // rows] for row in range(rows)]))
        return torch.stack(result)

    def caption(self, name, wording):
        """Tokens before the name, and those of the name with what follows it, by one tokenisation each of the parts."""
        before, after = wording.split("{name}")
        spaced = before.endswith(" ")
        return self.tokens(before.removesuffix(" ")) if before.strip(" ") else [], self.tokens(
            (" " if spaced else "") + name + after
        )

    def states(self, sequences, pictures):
        """Last hidden states of each sequence of token ids with one None, where the rows of its picture stand."""
        parts = []
        for ids, rows in zip(sequences, pictures, strict=True):
            at = ids.index(None)
            parts.append(torch.cat([self.embed(ids[:at]), rows, self.embed(ids[at + 1 :])] if at + 1 < len(ids)
                                   else [self.embed(ids[:at]), rows]))  # fmt: skip
        result = [None] * len(parts)
        order = sorted(range(len(parts)), key=lambda i: len(parts[i]))
        for begin in range(0, len(order), TOGETHER):
            some = order[begin : begin + TOGETHER]
            # Padding stands at the end, where a causal model does not see it.
            padded = torch.nn.utils.rnn.pad_sequence([parts[i] for i in some], batch_first=True)
            for i, states in zip(some, self.model.model(inputs_embeds=padded).last_hidden_state, strict=True):
                result[i] = states[: len(parts[i])]
        return result

    def caption_loss(self, rows, names, mix, rng, generator, vocabulary):
        """Cross-entropy of the names' tokens in captions of pictures; the vocabulary is sampled, and that made up for."""
        sequences, targets, places = [], [], []
        for name in names:
            before, wanted = self.caption(name, rng.choice(WORDINGS))
            text = self.tokens(unrelated(rng)) if mix == "later" and rng.random() < 0.6 else []
            start = [*self.begin, *text]
            sequences.append([*start, None, *before, *wanted[:-1]])
            first = len(start) + rows.shape[1] + len(before) - 1
            places.append(range(first, first + len(wanted)))
            targets.append(wanted)
        hidden = self.states(sequences, rows)
        hidden = torch.cat([states[list(place)] for states, place in zip(hidden, places, strict=True)])
        wanted = torch.tensor([t for target in targets for t in target])
        drawn = torch.randint(len(self.head), (NEGATIVES,), generator=generator)
        drawn = drawn[~torch.isin(drawn, vocabulary)]
        logits = hidden @ self.head[torch.cat([vocabulary, drawn])].T
        # Each drawn token stands for all that were not.
        correction = torch.zeros(logits.shape[1])
        correction[len(vocabulary) :] = torch.log(torch.tensor((len(self.head) - len(vocabulary)) / len(drawn)))
        place = torch.searchsorted(vocabulary, wanted)
        return F.cross_entropy(logits + correction, place)

    def vocabulary(self, names):
        """All tokens that a caption of one of the names can hold, sorted."""
        ids = {t for name in names for wording in WORDINGS for t in self.caption(name, wording)[1]}
        return torch.tensor(sorted(ids))

    @torch.inference_mode()
    def named(self, rows, names, candidates, wording=" This is {name}."):
        """For every picture whether, of `candidates` alone, the greedy continuation of `wording` is its name, token by token."""
        follow = {}
        for name in candidates:
            ids = self.caption(name, wording)[1]
            for k, token in enumerate(ids):
                follow.setdefault(tuple(ids[:k]), set()).add(token)
        captions = [self.caption(name, wording) for name in names]
        sequences = [[*self.begin, None, *before, *target[:-1]] for before, target in captions]
        right = []
        for states, (_, target) in zip(self.states(sequences, rows), captions, strict=True):
            choices = [sorted(follow[tuple(target[:k])]) for k in range(len(target))]
            best = [ids[(self.head[ids] @ state).argmax()] for ids, state in zip(choices, states[-len(target) :], strict=True)]
            right.append(best == target)
        return right


def unrelated(rng: random.Random):
    """Some words out of a plain sentence, cut anywhere."""
    words = rng.choice(SENTENCES).split()
    begin = rng.randrange(len(words) - 2)
    return " ".join(words[begin : begin + rng.randint(2, 8)]) + rng.choice(["", "\n", ":", ".", "\n\n"])
