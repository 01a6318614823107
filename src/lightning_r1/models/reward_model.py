"""A reward model: a transformers sequence classifier that gives a response one number.

Two ways to one. :func:`new_reward_model` puts a *new* head on a base model, to be trained (the R1 paper's
helpfulness and safety models: the policy's architecture with a scalar head, arXiv 2501.12948 v2, section
3.1). :func:`load_reward_model` loads a trained one, ours or anybody's, and refuses a checkpoint without its
head, which transformers would fill with random numbers and a warning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from lightning_r1.models.codec import Codec
from lightning_r1.models.exact_buffers import ExactBuffers
from lightning_r1.models.export import read_card, replacing, save_weights, write_card
from lightning_r1.models.load import loading_options
from lightning_r1.models.policy import evaluating
from lightning_r1.models.token_budget import split_by_tokens
from lightning_r1.models.tokenizer import load_tokenizer
from lightning_r1.models.turns import Scope, TurnCodec, with_turns
from lightning_r1.text.tags import Tags
from lightning_r1.text.templates import Template


class RewardModel(ExactBuffers):
    """Scores responses.

    Args:
        model: the classifier. The product of its head is taken in float32 whatever its dtype and whatever
            autocast says: 8 bits of a score would make ties of what a group is compared by.
        turns: makes its rows.
        label: of several classes, the one whose log-odds are the score; None where there is one output.
    """

    def __init__(self, model: PreTrainedModel, turns: TurnCodec, *, label: int | None = None) -> None:
        super().__init__()
        self.model, self.turns, self.label = model, turns, label
        self.make: Callable[[], nn.Module] | None = None
        """Makes it with its weights, where it was made without."""
        if isinstance(head := getattr(model, "score", None), nn.Linear):
            model.score = Float32Linear(head)
        # it is how transformers finds the last token of a padded row
        model.config.get_text_config().pad_token_id = turns.pad_id
        model.config.use_cache = False

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores ``[N]`` float32 of padded rows.

        Args:
            input_ids: ``[N, L]``.
            attention_mask: ``[N, L]`` bool.
        """
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask.long()).logits.float()
        if self.label is None:
            return logits.squeeze(-1)
        others = [index for index in range(logits.shape[-1]) if index != self.label]
        return logits[:, self.label] - logits[:, others].logsumexp(-1)

    def score(self, turns: Sequence[tuple[str, str]], *, micro_batch_tokens: int = 16384) -> list[float]:
        """Scores of (question, completion) pairs, without gradients.

        Where all of a response counts and it does not fit, it is read in parts, and its score is the lowest: what is
        harmful must not pass for standing far from the end.

        Equal rows are scored once: what is equal must not differ by rounding, for a group whose rewards
        differ by a last bit would no longer be one whose rewards are all equal.
        """
        rows = [self.turns.rows(question, completion) for question, completion in turns]
        distinct = list(dict.fromkeys(row for parts in rows for row in parts))
        scores: dict[tuple[int, ...], float] = {}
        with evaluating(self):
            for part in split_by_tokens([len(row) for row in distinct], micro_batch_tokens):
                chosen = [distinct[place] for place in part]
                values = self(*(tensor.to(self.device) for tensor in pad_rows(chosen, self.turns.pad_id)))
                scores.update(zip(chosen, values.tolist(), strict=True))
        return [_lowest([scores[row] for row in parts]) for parts in rows]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


def _lowest(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else min(values)


class Float32Linear(nn.Linear):
    """A linear map whose product is in float32; its weight keeps its name.

    Args:
        linear: gives the weight.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().float())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float())

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        with torch.autocast(hidden.device.type, enabled=False):
            return linear(hidden.float(), self.weight, self.bias)


def pad_rows(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """``input_ids`` and bool ``attention_mask``, both ``[N, L]``, padded on the right.

    >>> pad_rows([[5, 6, 7], [8]], pad_id=0)[0].tolist()
    [[5, 6, 7], [8, 0, 0]]
    """
    tensors = [torch.tensor(row) for row in rows]
    ones = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    return (
        nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=pad_id),
        nn.utils.rnn.pad_sequence(ones, batch_first=True, padding_value=False),
    )


def new_reward_model(
    path: str | Path,
    template: Template,
    *,
    seed: int,
    scope: Scope = "summary",
    max_tokens: int | None = None,
    dtype: str = "float32",
    attention: str = "sdpa",
    dropout: float = 0.0,
    computes_in: str | None = None,
    hollow: bool = False,
) -> RewardModel:
    """A base model with a scalar head to be trained; one that has a scalar head keeps it, and goes on.

    The head is drawn from a normal distribution of standard deviation ``1 / sqrt(H + 1)``, so that scores
    begin within a unit or so (as in arXiv 2009.01325, appendix B).

    Args:
        path: a decoder, in a folder or on the hub.
        template: how a question stands before its response.
        seed: of the head.
        scope: what of a completion is read.
        max_tokens: of a row, see :class:`.TurnCodec`.
        dtype: as in :func:`.load_model`.
        attention: as in :func:`.load_model`.
        dropout: as in :func:`.load_model`.
        computes_in: as in :func:`.load_model`.
        hollow: without weights, on the ``meta`` device.

    Raises:
        ValueError: for an architecture without such a head, and if more than the head is missing.
    """
    loading = {"dtype": dtype, "attention": attention, "dropout": dropout, "computes_in": computes_in}
    model, missing = _read(path, **loading, num_labels=1, hollow=hollow)
    head = getattr(model, "score", None)
    if not isinstance(head, nn.Linear) or missing - {"score.weight"}:
        raise ValueError(
            f"model.path={path}: a {model.config.model_type} would begin with random {', '.join(sorted(missing))}; "
            "take a decoder, whose head alone is new"
        )
    turns = TurnCodec(
        with_turns(load_tokenizer(path), template), scope=scope, tags=template.tags, max_tokens=max_tokens
    )
    reward_model = RewardModel(model, turns)
    if missing:
        weight: Tensor = model.score.weight  # type: ignore[union-attr, assignment]
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1] + 1), generator=generator)
    return reward_model


def load_reward_model(
    path: str | Path,
    *,
    scope: Scope,
    tags: Tags | None = None,
    label: str | None = None,
    max_tokens: int | None = None,
    dtype: str = "float32",
    attention: str = "sdpa",
) -> RewardModel:
    """A trained reward model: any sequence classifier of transformers.

    Args:
        path: a folder or hub id.
        scope: what of a completion is read.
        tags: of the thinking.
        label: for a classifier of several classes, the one whose log-odds are the score.
        max_tokens: of a row, if fewer than the model's context.
        dtype: as in :func:`.load_model`.
        attention: as in :func:`.load_model`.

    Raises:
        ValueError: if weights are missing, if it was trained on another scope, or if it is not told which of
            several classes to read.
    """
    model, missing = _read(path, dtype=dtype, attention=attention, dropout=0.0)
    if missing:
        raise ValueError(
            f"reward model {path}: its weights lack {', '.join(sorted(missing))}, so that its scores would be random. "
            f"Give a trained one, or train it: phase=reward_model model.path={path}"
        )
    trained_on = read_card(path).get("scope", scope)
    if trained_on != scope:
        raise ValueError(f"scope={scope}: the reward model {path} was trained to read the {trained_on}")
    tokenizer = load_tokenizer(path)
    if not tokenizer.chat_template and getattr(model.config, "type_vocab_size", 0) > 1:
        raise ValueError(f"reward model {path}: {model.config.model_type} marks pairs by token types, unsupported")
    limits = (max_tokens, getattr(model.config.get_text_config(), "max_position_embeddings", None))
    shortest = min((limit for limit in (*limits, tokenizer.model_max_length) if limit), default=None)
    turns = TurnCodec(tokenizer, scope=scope, tags=tags, max_tokens=shortest)
    return RewardModel(model, turns, label=_class_of(model, label, path)).eval().requires_grad_(False)


def _read(path: str | Path, *, hollow: bool = False, **options: Any) -> tuple[PreTrainedModel, set[str]]:
    """The classifier, and the names of the weights that its checkpoint lacks; hollow, it lacks none."""
    loading = loading_options(path, **options)
    try:
        if hollow:
            with torch.device("meta"):
                return AutoModelForSequenceClassification.from_config(loading.pop("config"), **loading), set()
        model, info = AutoModelForSequenceClassification.from_pretrained(str(path), output_loading_info=True, **loading)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ValueError(
            f"{path}: transformers has no sequence classifier of the architecture {loading['config'].model_type}; "
            "take another one for the reward model"
        ) from error
    return model, set(info["missing_keys"])


def _class_of(model: PreTrainedModel, label: str | None, path: str | Path) -> int | None:
    """The index of the class to read, None where there is one output."""
    names = [str(name) for name in (model.config.id2label or {}).values()]
    if len(names) == 1 and label is None:
        return None
    if len(names) > 1 and label in names:
        return names.index(label)
    raise ValueError(
        f"label={label}: the reward model {path} has {len(names)} output(s) ({', '.join(names)}); "
        + ("leave label out" if len(names) == 1 else "name the one whose log-odds are the score")
    )


def export_reward_model(
    reward_model: RewardModel,
    codec: Codec,
    folder: Path,
    *,
    card: Mapping[str, Any],
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write config, weights and tokenizer, all or nothing; the chat template shows both turns.

    Args:
        reward_model: with one output.
        codec: of the base model, for the template's contract.
        folder: is replaced if it exists.
        card: facts to keep beside the weights; the scope is added.
        weights: as in :func:`.export_model`.

    Returns:
        ``folder``.

    Raises:
        ValueError: if transformers would read another tokenizer back; the folder is left as it was.
    """
    probe = ("Wait, 2 * 15?1=9 (1.5) x", "<think>2</think> 3")
    turns = reward_model.turns
    with replacing(folder) as beside:
        save_weights(reward_model.model, beside, weights)
        turns.tokenizer.save_pretrained(beside)
        read_back = TurnCodec(load_tokenizer(beside), scope=turns.scope, tags=turns.tags, max_tokens=turns.max_tokens)
        if read_back.row(*probe) != turns.row(*probe):
            raise ValueError(
                f"model_type={reward_model.model.config.model_type!r}: transformers reads another tokenizer back than "
                "the one that was saved, so the export would be useless. Use another architecture for this tokenizer."
            )
        write_card(beside, codec, {**card, "scope": turns.scope})
    return folder
