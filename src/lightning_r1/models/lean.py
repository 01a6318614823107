"""One decoding step of a small Llama-like model, without the modules around its arithmetic.

For a model of a few hundred thousand parameters, transformers' modules take longer than the products they
arrange. Here projections that read the same vector are one product, the weights of the norms and the scale of the
scores are multiplied into them, and the rotation is taken from a table. The numbers are the model's own up to
rounding; the copies are made anew for every rollout, and only of models that are small.

    x += o(attention(rope(q), rope(k), v));  x += down(silu(gate) * up)      each of RMS-normed x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lightning_r1.models.adapter import is_plain_adapter
from lightning_r1.models.cache import RolloutCache
from lightning_r1.models.merging import merged

_FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
_ROPES = {"default", "linear", "llama3", "yarn"}  # a table of angles; others change them as a row grows
# the last three stand in adapters
_PLAIN = (nn.Linear, nn.Embedding, nn.ModuleList, nn.ModuleDict, nn.ParameterDict, nn.Identity)
_MOST_BYTES = 64 * 2**20


def can_be_lean(model: PreTrainedModel) -> bool:
    """Whether :class:`LeanStep` computes this model: float32 on a CPU, small, with nothing but an adapter added."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in _FAMILIES
        and model.device.type == "cpu"
        and config._attn_implementation == "sdpa"
        and config.hidden_act == "silu"
        and rope.get("rope_type") in _ROPES
        and not (getattr(config, "sliding_window", None) and _slides(config))
        and all(parameter.dtype == torch.float32 for parameter in model.parameters())
        and sum(parameter.numel() * 4 for parameter in model.parameters()) <= _MOST_BYTES
        and all(_is_plain(module) for module in model.modules())
    )


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    return kinds is None or "sliding_attention" in kinds


def _is_plain(module: nn.Module) -> bool:
    """No hook watches it, nothing but a plain adapter is wrapped around it, nobody replaced its forward."""
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    known = type(module) in _PLAIN or type(module).__module__.startswith("transformers.") or is_plain_adapter(module)
    return known and not hooked


def _weight(module: Any) -> Tensor:
    """``[out, in]``, with the adapter if there is one."""
    return merged(module) if is_plain_adapter(module) else module.weight


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one layer; those that follow a norm or stand before a product are multiplied together."""

    attend: Tensor
    """``[(heads + 2 * kv_heads) * d, H]``: queries, keys, values."""
    attend_bias: Tensor | None
    head_norms: Tensor | None
    """``[heads + kv_heads, d]``, Qwen3's norms of queries and keys."""
    mix: Tensor
    """``[heads * d, H]``, transposed."""
    mix_bias: Tensor | None
    widen: Tensor
    """``[2 * intermediate, H]``: gate, up."""
    widen_bias: Tensor | None
    narrow: Tensor
    """``[intermediate, H]``, transposed."""
    narrow_bias: Tensor | None


class LeanStep:
    """See the module; a :class:`lightning_r1.models.decoder.Step`.

    Args:
        model: one that :func:`can_be_lean`.
        cache: is read and written.
    """

    def __init__(self, model: PreTrainedModel, cache: RolloutCache) -> None:
        config: Any = model.config
        self.cache = cache
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        base: Any = model.base_model
        self.embedding = base.embed_tokens.weight
        self.layers = [self._layer(layer) for layer in base.layers]
        head: Any = model.get_output_embeddings()
        self.head, self.head_bias = head.weight * base.norm.weight, head.bias
        positions = torch.arange(cache.columns).unsqueeze(0)
        cos, sin = base.rotary_emb(self.embedding, positions)
        # rotate_half(x) * sin is roll(x, d / 2) * sin with the first half's sign turned
        half = self.size // 2
        self.cos, self.sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        before, between = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        attend = torch.cat([_weight(part) for part in parts]) * before
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        norms = None
        queries = self.heads * self.size
        if hasattr(attention, "q_norm"):
            norms = torch.cat(
                [
                    attention.q_norm.weight.expand(self.heads, -1) * attention.scaling,
                    attention.k_norm.weight.expand(self.kv_heads, -1),
                ]
            )
        else:
            attend[:queries] *= attention.scaling
            if bias is not None:
                bias[:queries] *= attention.scaling
        wide = [mlp.gate_proj, mlp.up_proj]
        return _Layer(
            attend,
            bias,
            norms,
            _weight(attention.o_proj).t(),
            attention.o_proj.bias,
            torch.cat([_weight(part) for part in wide]) * between,
            None if wide[0].bias is None else torch.cat([part.bias for part in wide]),
            _weight(mlp.down_proj).t(),
            mlp.down_proj.bias,
        )

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits ``[n, V]`` behind ``tokens`` ``[n]``."""
        cache = self.cache
        cos, sin = self._rotation()
        counted = cache.counted(len(tokens))
        hidden_columns = None if counted is None else ~counted.view(len(tokens), 1, 1, -1)
        x = F.embedding(tokens, self.embedding)
        for layer, held in zip(self.layers, cache.rollout_layers, strict=True):
            mixed = self._attend(layer, held, self._norm(x), cos, sin, hidden_columns)
            x = _add(x, mixed, layer.mix, layer.mix_bias)
            gate, up = F.linear(self._norm(x), layer.widen, layer.widen_bias).chunk(2, dim=-1)
            x = _add(x, F.silu(gate).mul_(up), layer.narrow, layer.narrow_bias)
        cache.advance()
        return F.linear(self._norm(x), self.head, self.head_bias)

    def _attend(
        self, layer: _Layer, held: Any, x: Tensor, cos: Tensor, sin: Tensor, hidden_columns: Tensor | None
    ) -> Tensor:
        """``[n, heads * d]``, before the output projection."""
        rows, heads, kv_heads, size = len(x), self.heads, self.kv_heads, self.size
        projected = F.linear(x, layer.attend, layer.attend_bias).view(rows, heads + 2 * kv_heads, size)
        turned = projected[:, : heads + kv_heads]
        if layer.head_norms is not None:
            turned = F.rms_norm(turned, (size,), None, self.eps).mul_(layer.head_norms)
        turned = torch.addcmul(turned * cos, turned.roll(size // 2, -1), sin)
        keys, values = held.update(
            turned[:, heads:].unsqueeze(2), projected[:, heads + kv_heads :].unsqueeze(2)
        )  # the scale is in the queries
        queries = turned[:, :heads].reshape(rows, kv_heads, heads // kv_heads, size)
        scores = torch.matmul(queries, keys.transpose(-1, -2))
        if hidden_columns is not None:
            scores.masked_fill_(hidden_columns, -torch.inf)
        return torch.matmul(scores.softmax(-1), values).view(rows, heads * size)

    def _norm(self, x: Tensor) -> Tensor:
        """``x`` over its root mean square; the norm's weight is in what follows."""
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return x * square.div_(x.shape[-1]).add_(self.eps).rsqrt_()

    def _rotation(self) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of the rows' positions, ``[d]`` or ``[n, 1, d]``."""
        at = self.cache.common
        if at is not None:
            return self.cos[at], self.sin[at]
        positions = self.cache.lengths[: self.cache.live]
        return self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)


def _add(x: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x = torch.addmm(x, inner, weight)
    return x if bias is None else x.add_(bias)
