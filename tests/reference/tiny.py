"""Tiny checkpoints: random weights that keep every part of a model at work, and a byte-level BPE tokenizer."""

import json
import math

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# Enough text for a few dozen merges; the vocabulary always holds all 256 bytes, so no merge can fall outside it.
CORPUS = [
    'Q:Sweden\nA:Stockholm\n\nQ:Norway\nA:Oslo\n\nQ:the capital of France\nA:Paris\n\n',
    'The capital city of the country: the animal is a small horse, the food is red and sweet.\n',
]

# Gains over 1/sqrt(fan_in). Queries and keys are large enough that attention is far from uniform, and no branch of a
# block is so small beside the residual stream that a mistake in it would hide below the tolerance.
GAINS = {
    'q_proj': 1.5,
    'k_proj': 1.5,
    'query_key_value': 1.3,
    'qkv_proj': 1.3,
    'qkv': 1.3,
    'down_proj': 1.5,
    'dense_4h_to_h': 1.5,
    'lm_head': 2.0,
    'embed_out': 2.0,
}


def randomise(model, seed, embedding_std=1.0, norm_offset=1.0, gains=None):
    """Overwrites every parameter. norm_offset is 0 for Gemma's text norms, which multiply by 1 + weight."""
    gains = {**GAINS, **(gains or {})}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            owner, kind = name.split('.')[-2:] if '.' in name else ('', name)
            if 'embed_tokens' in name or 'embed_in' in name:
                value = embedding_std * noise
            elif any(part in name for part in ('position_embedding', 'class_embedding', 'cls_token')):
                value = 0.5 * noise
            elif kind == 'bias':
                value = 0.3 * noise
            elif parameter.ndim == 1:
                text_norm = 'vision' not in name and 'visual' not in name
                value = (norm_offset if text_norm else 1.0) + 0.3 * noise
            else:
                fan_in = math.prod(parameter.shape[1:])
                value = gains.get(owner, 1.0) / math.sqrt(fan_in) * noise
            parameter.copy_(value)
    return model.float().eval()


def save_tokenizer(checkpoint, vocab_size, specials, add_bos, more_text=()):
    """A byte-level BPE with GPT-2's pre-tokenizer. specials take the first ids; the first one is BOS, the second EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*CORPUS, *more_text], trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f'the corpus gives {tokenizer.get_vocab_size()} tokens, not {vocab_size}')
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])
    wrapped.save_pretrained(checkpoint)
    # Read by the converter; transformers keeps it only for tokenizer classes of its own.
    config = checkpoint / 'tokenizer_config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'add_bos_token': add_bos}))
    return wrapped
