"""Stage 2: the base language model, on text only."""

import argparse
import random
import time

import torch

import tokenizer
from documents import Sampler, collate
from facts import MAIN
from network import Decoder
from training import icl_accuracy, loss_of, rate, step_with, text_documents

SCHEDULE = 5 / 6  # the run stops at this share of the schedule, at a third of the peak rate; the VLM stage goes on


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=900, help="positions a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer.check()

    decoder = Decoder(len(tokenizer.TOKENS))
    matrices = [w for w in decoder.parameters() if w.dim() > 1]
    norms = [w for w in decoder.parameters() if w.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98))
    sampler = Sampler()
    print("parameters", sum(w.numel() for w in decoder.parameters()), flush=True)
    start, running, positions = time.time(), [], 0
    for step in range(args.steps):
        done = SCHEDULE * step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * rate(done, step, warmup=150)
        # Facts first: without the attribute lists up front, in-context learning does not appear in a run this short.
        documents = text_documents(sampler, args.tokens, attributes=0.55 if done < 0.3 else 0.25)
        ids, weights, _ = collate(documents)
        loss = loss_of(decoder, decoder.token_embd(ids[:, :-1]), ids, weights)
        step_with(optimizer, loss, list(decoder.parameters()))
        running.append(loss.item())
        positions += ids.numel()
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            scores = icl_accuracy(decoder, lambda ids, _: decoder.token_embd(ids.clamp(min=0)), sampler, MAIN)
            print(
                step + 1, f"{(time.time() - start) / (step + 1):.3f} s/step", positions, "positions",
                f"loss {sum(running) / len(running):.3f}", "text ICL", scores, flush=True,
            )
            running = []
            torch.save({"config": decoder.config, "weights": decoder.state_dict()}, args.out)


if __name__ == "__main__":
    main()
