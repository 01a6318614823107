"""Tokenizers: loading one, and building the miniature's.

The miniature's tokenizer makes every number from 0 to 99 one token. With digits as characters a
model of 0.2 million parameters does not learn the arithmetic in a minute.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_r1.models.hub import check_on_hub

_SPECIAL = ("<pad>", "<bos>", "<eos>")
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_CHARACTERS = "+-*/=()?;!,.: xab"
_WORDS = (
    # verdicts in the miniature's two languages
    *(" no; ", " yes! ", " 错; ", " 对! "),
    # small talk
    *("greet ", "mock ", " welcome", " friend", " thanks", " whatever", " nonsense", " fool"),
)


def number_tokenizer() -> PreTrainedTokenizerFast:
    """The miniature's tokenizer: 3 special tokens, 4 tags, the numbers 0..99, 17 characters, 12 words.

    >>> tokenizer = number_tokenizer()
    >>> len(tokenizer), tokenizer.tokenize("2*15=30 yes! </think>")
    (136, ['2', '*', '15', '=', '30', ' yes! ', '</think>'])
    """
    pieces = [*_SPECIAL, *_TAGS, *map(str, range(100)), *_CHARACTERS, *_WORDS]
    backend = Tokenizer(WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="<pad>"))
    pattern = r"</?(?:pad|bos|eos|think|answer)>|[1-9]\d|\d|" + "|".join(_WORDS) + "|."
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer from a folder or the hub; its pad token is EOS if it has none.

    It is the first of a model that is read, so that the hub is asked here whether the model can be had.

    Raises:
        HubError: see :func:`lightning_r1.models.hub.check_on_hub`.
        ValueError: if it has no EOS: no completion could ever stop.
    """
    check_on_hub(path)
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    if tokenizer.eos_token_id is None:
        raise ValueError(f"model.tokenizer={path}: it has no EOS token, so no completion could stop; set one")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
