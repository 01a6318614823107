"""Chunked log-probabilities and entropies: naive loops, a dense softmax, gradcheck, precision, memory."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lightning_r1.functional import selected_logprobs
from oracles.naive_logprobs import naive_selected_logprobs

TOKENS, VOCABULARY, HIDDEN = 6, 11, 4
CHUNKS = (1, 2, 4, 6, 100, None)
OPTIONS = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 1.5},
    "everything": {"temperature": 0.7, "softcap": 2.0, "scale": 1.7},
}


def head(seed=0, tokens=TOKENS, vocabulary=VOCABULARY, hidden=HIDDEN, dtype=torch.float64):
    make = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(vocabulary, (tokens,), generator=make)
    return normal(tokens, hidden), normal(vocabulary, hidden), normal(vocabulary), targets


def dense(hidden, weight, targets, *, bias=None, temperature=1.0, softcap=None, scale=1.0):
    """The whole matrix, a log_softmax, and autograd."""
    logits = F.linear(hidden, weight, bias)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = (logits / temperature).log_softmax(-1)
    return log_p.gather(-1, targets[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)


def mixed(logprobs, entropy):
    """A scalar in which every output has a weight of its own."""
    index = torch.arange(len(logprobs), dtype=logprobs.dtype)
    return (logprobs * (index + 1).cos()).sum() + (entropy * (index + 2).sin()).sum()


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_values_equal_the_naive_loop(options, with_bias, chunk_rows):
    hidden, weight, bias, targets = head()
    bias = bias if with_bias else None
    actual = selected_logprobs(hidden, weight, targets, bias=bias, chunk_rows=chunk_rows, **options)
    expected = naive_selected_logprobs(
        hidden.tolist(), weight.tolist(), targets.tolist(), bias=None if bias is None else bias.tolist(), **options
    )
    for ours, naive in zip(actual, expected, strict=True):
        close(ours.detach(), torch.tensor(naive, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_equal_a_dense_softmax(options, with_bias, chunk_rows, seed):
    hidden, weight, bias, targets = head(seed)
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    bias = bias if with_bias else None
    expected = torch.autograd.grad(mixed(*dense(hidden, weight, targets, bias=bias, **options)), inputs)
    actual = torch.autograd.grad(
        mixed(*selected_logprobs(hidden, weight, targets, bias=bias, chunk_rows=chunk_rows, **options)), inputs
    )
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradient_of_one_output_alone(options, which):
    hidden, weight, bias, targets = head(3)
    outputs = selected_logprobs(hidden, weight, targets, bias=bias, chunk_rows=4, **options)
    actual = torch.autograd.grad(outputs[which].sin().sum(), [hidden, weight, bias])
    outputs = dense(hidden, weight, targets, bias=bias, **options)
    expected = torch.autograd.grad(outputs[which].sin().sum(), [hidden, weight, bias])
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_a_frozen_input_gets_no_gradient_and_changes_no_other(needed):
    inputs = head(4)
    expected = torch.autograd.grad(mixed(*dense(inputs[0], inputs[1], inputs[3], bias=inputs[2])), inputs[:3])
    hidden, weight, bias = (x.detach().requires_grad_(i in needed) for i, x in enumerate(inputs[:3]))
    mixed(*selected_logprobs(hidden, weight, inputs[3], bias=bias, chunk_rows=4)).backward()
    for i, leaf in enumerate((hidden, weight, bias)):
        if i in needed:
            close(leaf.grad, expected[i])
        else:
            assert leaf.grad is None


@pytest.mark.parametrize("chunk_rows", [1, 4, 100])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradcheck(options, chunk_rows):
    """Two outputs, three inputs; with the bias and without."""
    hidden, weight, bias, targets = head(5, tokens=5, vocabulary=7, hidden=3)

    def with_bias(h, w, b):
        return selected_logprobs(h, w, targets, bias=b, chunk_rows=chunk_rows, **options)

    def without_bias(h, w):
        return selected_logprobs(h, w, targets, chunk_rows=chunk_rows, **options)

    assert torch.autograd.gradcheck(with_bias, (hidden, weight, bias), atol=1e-8)
    assert torch.autograd.gradcheck(without_bias, (hidden, weight), atol=1e-8)


def test_same_token_many_times_adds_its_gradients():
    hidden, weight, _, _ = head(6)
    targets = torch.full((TOKENS,), 3)
    actual = torch.autograd.grad(mixed(*selected_logprobs(hidden, weight, targets, chunk_rows=4)), [hidden, weight])
    expected = torch.autograd.grad(mixed(*dense(hidden, weight, targets)), [hidden, weight])
    for ours, theirs in zip(actual, expected, strict=True):
        close(ours, theirs)


def test_no_tokens_at_all():
    hidden, weight, bias, targets = head(tokens=0)
    logprobs, entropy = selected_logprobs(hidden, weight, targets, bias=bias)
    assert logprobs.shape == entropy.shape == (0,)
    (logprobs.sum() + entropy.sum()).backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))
    assert torch.equal(bias.grad, torch.zeros_like(bias))


@pytest.mark.parametrize("softcap", [None, 30.0])
def test_huge_logits_stay_finite(softcap):
    hidden, weight, bias, targets = head(7, dtype=torch.float32)
    outputs = selected_logprobs(hidden * 1e4, weight, targets, bias=bias, softcap=softcap, chunk_rows=4)
    mixed(*outputs).backward()
    assert all(x.isfinite().all() for x in (*outputs, hidden.grad, weight.grad, bias.grad))
    expected = dense(hidden * 1e4, weight, targets, bias=bias, softcap=softcap)
    torch.testing.assert_close(outputs[0], expected[0], rtol=1e-6, atol=1e-6)


def test_float32_keeps_its_digits_at_logits_of_thirty():
    hidden, weight, bias, targets = head(7)
    exact = dense(hidden * 10, weight, targets, bias=bias)
    rough = selected_logprobs(hidden.float() * 10, weight.float(), targets, bias=bias.float())
    for ours, theirs in zip(rough, exact, strict=True):
        close(ours.double(), theirs, 1e-4)


def test_a_second_derivative_is_refused_or_right():
    """What the forward keeps (log-sum-exp, entropy) is a constant to the backward's own graph."""
    hidden, weight, _, targets = head(7)

    def curvature(function):
        gradient = torch.autograd.grad(mixed(*function(hidden, weight, targets)), hidden, create_graph=True)[0]
        return torch.autograd.grad(gradient.square().sum(), hidden)[0]

    try:
        actual = curvature(selected_logprobs)
    except RuntimeError:
        return
    close(actual, curvature(dense))


def test_a_uniform_distribution_has_the_entropy_of_its_size():
    hidden, weight, _, targets = head(0)
    logprobs, entropy = selected_logprobs(hidden, torch.zeros_like(weight), targets)
    size = torch.full((TOKENS,), float(VOCABULARY), dtype=torch.float64)
    close(logprobs, -size.log())
    close(entropy, size.log())


@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("chunk_rows", [4, None])
def test_bfloat16_hidden_states(weight_dtype, chunk_rows):
    """Products in bfloat16, everything after them in float32; each gradient in its own input's type."""
    hidden, weight, bias, targets = head(8, tokens=12, vocabulary=40, hidden=16)
    hidden = hidden.detach().bfloat16().requires_grad_()
    weight, bias = (x.detach().mul(0.3).to(weight_dtype).requires_grad_() for x in (weight, bias))
    outputs = selected_logprobs(hidden, weight, targets, bias=bias, temperature=0.8, chunk_rows=chunk_rows)
    actual = torch.autograd.grad(mixed(*outputs), [hidden, weight, bias])
    expected_outputs = dense(hidden, weight.bfloat16(), targets, bias=bias.bfloat16(), temperature=0.8)
    expected = torch.autograd.grad(mixed(*expected_outputs), [hidden, weight, bias])
    for ours, theirs in zip(outputs, expected_outputs, strict=True):
        assert ours.dtype == torch.float32
        close(ours, theirs, 1e-5)
    for ours, theirs, leaf in zip(actual, expected, (hidden, weight, bias), strict=True):
        assert ours.dtype == leaf.dtype
        assert (ours - theirs).abs().max() <= 0.01 * theirs.abs().max(), "bfloat16 holds 8 bits"
        assert theirs.abs().max() > 0


def test_autocast_changes_nothing():
    """Under autocast a matrix product turns bfloat16 by itself; log-probabilities and entropy must not."""
    hidden, weight, bias, targets = head(9, dtype=torch.float32)
    expected = selected_logprobs(hidden, weight, targets, bias=bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = selected_logprobs(hidden, weight, targets, bias=bias)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_backward_under_autocast_changes_nothing():
    """A manual backward inside a training step runs within the precision plugin's autocast."""
    hidden, weight, bias, targets = head(9, dtype=torch.float32)
    inputs = [hidden, weight, bias]
    expected = torch.autograd.grad(mixed(*selected_logprobs(hidden, weight, targets, bias=bias)), inputs)
    loss = mixed(*selected_logprobs(hidden, weight, targets, bias=bias))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = torch.autograd.grad(loss, inputs)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


class LargestTensor(TorchDispatchMode):
    """Records the most elements of any tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "scale": 0.5, "temperature": 0.7}])
@pytest.mark.parametrize(
    ("tokens", "vocabulary", "chunk_rows", "rows"), [(40, 50, 8, 8), (40, 50, 1, 1), (2100, 16, None, 1024)]
)
def test_the_whole_matrix_never_exists(tokens, vocabulary, chunk_rows, rows, options):
    """Neither forward nor backward: nothing is larger than one chunk's logits or one input."""
    hidden, weight, bias, targets = head(10, tokens=tokens, vocabulary=vocabulary)
    largest_input = max(hidden.numel(), weight.numel())
    with LargestTensor() as forward:
        outputs = selected_logprobs(hidden, weight, targets, bias=bias, chunk_rows=chunk_rows, **options)
        total = mixed(*outputs)
    with LargestTensor() as backward:
        total.backward()
    for recorded in (forward, backward):
        assert 0 < recorded.elements <= max(rows * vocabulary, largest_input) < tokens * vocabulary
    assert all(leaf.grad is not None for leaf in (hidden, weight, bias))


def test_the_memory_test_can_fail():
    hidden, weight, bias, targets = head(10, tokens=40, vocabulary=50)
    with LargestTensor() as recorded:
        mixed(*dense(hidden, weight, targets, bias=bias)).backward()
    assert recorded.elements >= 40 * 50


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_no_temperature_is_refused(temperature):
    hidden, weight, _, targets = head()
    with pytest.raises(ValueError, match="temperature"):
        selected_logprobs(hidden, weight, targets, temperature=temperature)


@pytest.mark.parametrize("kept_bytes", [0, 3 * 2 * 11 * 8, 2**28])
def test_what_is_kept_for_the_backward_changes_nothing(kept_bytes: int) -> None:
    """None, some (three chunks of two rows) or all chunks are kept; the largest of them are computed again."""
    make = torch.Generator().manual_seed(4)
    hidden, weight = (torch.randn(n, 5, generator=make, dtype=torch.float64) for n in (9, 11))
    bias, targets = torch.randn(11, generator=make, dtype=torch.float64), torch.randint(11, (9,), generator=make)
    upstream = torch.randn(2, 9, generator=make, dtype=torch.float64)
    found = []
    for said in ({"kept_bytes": kept_bytes, "chunk_rows": 2}, {"dense": True}):
        inputs = [tensor.clone().requires_grad_() for tensor in (hidden, weight, bias)]
        if "dense" in said:
            log_p = (torch.nn.functional.linear(*inputs) / 0.7).log_softmax(-1)
            logprobs, entropy = log_p.gather(-1, targets[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)
        else:
            logprobs, entropy = selected_logprobs(
                inputs[0], inputs[1], targets, bias=inputs[2], temperature=0.7, **said
            )
        (upstream[0] * logprobs + upstream[1] * entropy).sum().backward(retain_graph=True)
        (upstream[0] * logprobs).sum().backward()  # what is kept is as it was
        found.append([tensor.grad for tensor in inputs])
    for ours, dense in zip(*found, strict=True):
        torch.testing.assert_close(ours, dense, rtol=0, atol=1e-10)
