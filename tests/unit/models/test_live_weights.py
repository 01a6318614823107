"""What another program receives is what the policy holds: every tensor, once, bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers.models import tiny_model
from lightning_r1.models.live_weights import buckets, live_weights, unpacked


class Tied(nn.Module):
    """Two names for one parameter, a buffer that must not be rounded, a number without shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5, bias=False)
        self.second = nn.Linear(3, 5, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.tensor([1 / 3, 2 / 3]))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("not_saved", torch.zeros(2), persistent=False)


def test_names_are_a_checkpoints_and_tied_ones_come_once() -> None:
    model = Tied()
    sent = dict(live_weights(model, torch.bfloat16))
    assert list(sent) == ["kept", "count", "first.weight"]
    assert (sent["first.weight"] == model.first.weight.bfloat16()).all()
    assert sent["kept"].dtype == torch.float32
    assert sent["count"].dtype == torch.int64
    assert not sent["first.weight"].requires_grad


def test_nothing_is_copied_before_it_is_asked_for_and_live_ones_are_sent() -> None:
    model = Tied()
    sent = live_weights(model, torch.float32)
    with torch.no_grad():
        model.first.weight.fill_(4.0)
    tensor = dict(sent)["first.weight"]
    assert tensor.data_ptr() == model.first.weight.data_ptr(), "the same type is not even copied"
    assert (tensor == 4).all()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "gemma2", "deepseek_v3"])
@pytest.mark.parametrize("most_bytes", [0, 5000, 1 << 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_buckets_bring_every_bit(family: str, most_bytes: int, dtype: torch.dtype) -> None:
    model = tiny_model(family)
    expected = dict(live_weights(model, dtype))
    packed = list(buckets(live_weights(model, dtype), most_bytes))
    received = [pair for bucket in packed for pair in unpacked(bucket)]

    assert [name for name, _ in received] == list(expected)
    for name, tensor in received:
        assert tensor.dtype == expected[name].dtype
        assert tensor.shape == expected[name].shape
        assert torch.equal(tensor, expected[name])
    assert all(len(bucket.data) <= most_bytes or len(bucket.names) == 1 for bucket in packed)
    assert len(packed) == {0: len(expected), 1 << 30: 1}.get(most_bytes, len(packed))


def test_bytes_that_are_missing_are_an_error() -> None:
    (bucket,) = buckets(live_weights(Tied(), torch.float32), 1 << 20)
    object.__setattr__(bucket, "data", bucket.data[:-16])
    with pytest.raises((ValueError, RuntimeError)):
        unpacked(bucket)
    object.__setattr__(bucket, "data", bucket.data + bytes(48))
    with pytest.raises(ValueError, match="bytes came where"):
        unpacked(bucket)


def test_what_is_unpacked_does_not_share_memory_with_the_next_bucket() -> None:
    *_, first = buckets(live_weights(Tied(), torch.float32), 0)
    held = unpacked(first)[0][1]
    before = held.clone()
    unpacked(first)[0][1].zero_()
    assert torch.equal(held, before)
