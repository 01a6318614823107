"""A codec for any text in ASCII: tags and EOS are tokens, and so is every character."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from helpers.prompts import mini_template
from lightning_r1.models.codec import Codec

_TOKENS = ("<pad>", "<eos>", "<think>", "</think>", "<answer>", "</answer>", "\n", "\t", *map(chr, range(32, 127)))


def text_codec() -> Codec:
    """The miniature's template with this tokenizer."""
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(_TOKENS)}, unk_token="<pad>"))
    pattern = r"</?(?:pad|eos|think|answer)>|[\s\S]"
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )
    return Codec(mini_template(), tokenizer)
