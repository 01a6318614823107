"""What runs inside vLLM's worker processes: it takes the trainer's weights into the model that is served.

Named to vLLM as ``worker_extension_cls``; its methods are called by ``collective_rpc``, in process or over HTTP.
Written for vLLM 0.32. vLLM's own layer-wise reload does the loading: names are mapped by the model's
``load_weights``, and whatever was made of the weights at start-up (packed, fused, quantised) is made again.
"""

from __future__ import annotations

import base64
from typing import Any

from lightning_r1.models.live_weights import Bucket, unpacked

EXTENSION = "lightning_r1.rollout.vllm_worker.WeightReceiver"


class WeightReceiver:
    """Mixed into vLLM's worker, whose ``model_runner`` and ``vllm_config`` it uses."""

    model_runner: Any
    vllm_config: Any

    def r1_describe(self) -> dict[str, Any]:
        """What is served, so that a trainer can see whether it is its own model."""
        config = self.vllm_config.model_config
        transfer = self.vllm_config.weight_transfer_config
        return {
            "architecture": config.architecture,
            "vocab_size": config.get_vocab_size(),
            "hidden_size": config.get_hidden_size(),
            "dtype": str(config.dtype).removeprefix("torch."),
            "logprobs_mode": str(config.logprobs_mode),
            "max_model_len": config.max_model_len,
            "weight_transfer": transfer.backend if transfer else None,
            "world_size": self.vllm_config.parallel_config.world_size_across_dp,
        }

    def r1_start(self) -> None:
        """Make ready for new weights. An update that was broken off is begun anew."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        with self._as_configured():
            if getattr(self, "_r1_open", False):
                finalize_layerwise_reload(self.model_runner.get_model(), self.vllm_config.model_config)
            initialize_layerwise_reload(self.model_runner.get_model())
        self._r1_open = True

    def r1_receive(self, names: list[str], dtypes: list[str], shapes: list[list[int]], data: bytes | str) -> None:
        """Load a bucket; ``data`` as a text is base64."""
        raw = base64.b64decode(data, validate=True) if isinstance(data, str) else data
        weights = unpacked(Bucket(names, dtypes, shapes, raw))
        with self._as_configured():
            self.model_runner.get_model().load_weights(weights)

    def r1_finish(self) -> None:
        """Make of the new weights whatever the kernels need."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        model = self.model_runner.get_model()
        with self._as_configured():
            finalize_layerwise_reload(model, self.vllm_config.model_config)
            _repack_tied_head(model)
        self._r1_open = False

    def _as_configured(self) -> Any:
        from vllm.config import set_current_vllm_config

        return set_current_vllm_config(self.vllm_config)


def _repack_tied_head(model: Any) -> None:
    """On CPU a head packs its weight for its kernel when it is loaded; a tied one is never loaded itself."""
    head: Any = getattr(model, "lm_head", None)
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    if tied and hasattr(head, "quant_method") and head.weight.device.type == "cpu":
        head.quant_method.process_weights_after_loading(head)
