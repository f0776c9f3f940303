"""Reading checkpoints of the VLM stage. Several are averaged weight by weight: legs of one run lie close together, and
their mean recognises the held-out style better than the last leg alone."""

import torch

from network import Decoder, Vision, VisionLanguage


def read(paths):
    saved = [torch.load(path) for path in paths]
    weights = {name: sum(s["weights"][name] for s in saved) / len(saved) for name in saved[0]["weights"]}
    return {**saved[0], "weights": weights}


def load_vlm(paths):
    saved = read(paths)
    model = VisionLanguage(Decoder(**saved["decoder"]), Vision(**saved["vision"]))
    model.load_state_dict(saved["weights"])
    return model
