"""A training stage that can be killed at any moment: it goes on from its last checkpoint, and does the same steps."""

import math
import time
from pathlib import Path

import torch

from files import save

KEPT_EVERY = 240  # seconds between checkpoints


def rate(step, steps, warmup=30):
    """Factor on the learning rate: linear warm-up, then a cosine to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train(path, modules, optimizer, steps, seed, loss, watch, log, marks=()):
    """Runs `loss(generator, step)` `steps` times; `modules` (by name) and `optimizer` are what is kept in `path`.

    Every step has its own seed, so it does not matter where a run was stopped. At the steps in `marks` the modules are
    kept under a name of their own too. `watch()` gives numbers to log every 500 steps and at the end.
    """
    path = Path(path)
    base = [group["lr"] for group in optimizer.param_groups]
    first = 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        first = kept["step"]
        for name, module in modules.items():
            module.load_state_dict(kept[name])
        if first < steps:
            optimizer.load_state_dict(kept["optimizer"])

    def keep(step, to=path, whole=True):
        state = {name: module.state_dict() for name, module in modules.items()}
        save(to, {"step": step, **state, **({"optimizer": optimizer.state_dict()} if whole else {})})

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    begun = kept_at = time.time()
    losses = []
    for step in range(first, steps):
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * rate(step, steps)
        torch.manual_seed(seed * 1_000_003 + step)
        for module in modules.values():
            module.train()
        value = loss(torch.Generator().manual_seed(seed * 1_000_003 + step), step)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(value.item())
        if (step + 1) % 25 == 0 or step + 1 == steps:
            each = (time.time() - begun) / (step + 1 - first)
            log(f"{path.stem} step {step + 1} of {steps}, loss {sum(losses) / len(losses):.3f}, {each:.2f} s a step")
            losses = []
        if step + 1 in marks:
            keep(step + 1, path.with_name(f"{path.stem}-{step + 1}.pt"), whole=False)
        if time.time() - kept_at > KEPT_EVERY or step + 1 == steps:
            keep(step + 1)
            kept_at = time.time()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            for module in modules.values():
                module.eval()
            with torch.inference_mode():
                log(f"{path.stem} step {step + 1}: {watch()}")
    for module in modules.values():
        module.eval()
