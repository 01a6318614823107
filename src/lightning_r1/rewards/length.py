"""Rewards that look at how long a completion is: DAPO's soft punishment of overlong ones, and the cosine reward.

Both count tokens, the stop token included. Neither says anything about sense, and both are only worth what the
rewards beside them are:

* nothing is won under :class:`SoftOverlong` by being short, only nothing lost; without an accuracy reward beside it
  the policy learns to stop at once;
* under :class:`CosineLength` a wrong answer loses less the longer it is, so that a policy which is seldom right
  learns to go on in circles (arXiv 2502.03373, section 4.5). :class:`.Repetition` stands beside it for that reason.
"""

from __future__ import annotations

import math
from typing import Any

from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class SoftOverlong:
    r"""Punishes completions that come near the token limit (DAPO, arXiv 2503.14476, eq. 13).

    .. math::
        R(y) = \begin{cases}
            0 & |y| \le L_{max} - L_{cache} \\
            \frac{(L_{max} - L_{cache}) - |y|}{L_{cache}} & L_{max} - L_{cache} < |y| \le L_{max} \\
            -1 & L_{max} < |y|
        \end{cases}

    DAPO: :math:`L_{max}` 20,480 tokens, which is also where sampling stops, :math:`L_{cache}` 4,096. An engine's
    completions are never longer than the limit of sampling; longer ones come from elsewhere.

    Args:
        max_tokens: :math:`L_{max}`, tokens of a completion.
        cache_tokens: :math:`L_{cache}`, the last of them, over which the punishment grows.

    Raises:
        ValueError: unless ``0 < cache_tokens <= max_tokens``.
    """

    def __init__(self, max_tokens: int, cache_tokens: int) -> None:
        if not 0 < cache_tokens <= max_tokens:
            raise ValueError(
                f"cache_tokens={cache_tokens}: expected 1 to max_tokens={max_tokens}; the punishment grows over the "
                "last cache_tokens of them"
            )
        self.max_tokens, self.cache_tokens = max_tokens, cache_tokens

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """-1 to 0."""
        length = len(completion.token_ids)
        over = length - (self.max_tokens - self.cache_tokens)
        return RewardScore(-min(max(over, 0), self.cache_tokens) / self.cache_tokens, Outcome.OK, f"{length} tokens")


class CosineLength(Accuracy):
    r"""What an answer is worth by its length, in place of accuracy (arXiv 2502.03373, section 4.2 and eq. 1).

    .. math::
        R = r_L + \tfrac{1}{2} (r_0 - r_L) \left(1 + \cos\frac{\pi L}{L_{max}}\right)

    with :math:`r_0` and :math:`r_L`, the worth at no length and at all of it, of a right or of a wrong answer; and
    :math:`r_e` for a completion that ran into the limit. The defaults are the paper's. A right answer is worth more
    when it is short; a wrong one loses less when it is long, because more thinking may still help. An answer that is
    missing is wrong.

    The formula stands as a learning-rate schedule in the paper, with the worth at no length as its maximum. Length is
    in tokens, and a completion beyond the limit gets :math:`r_e`: past it the cosine would rise again.

    Args:
        tags: of the template.
        max_tokens: :math:`L_{max}`, tokens of a completion.
        right_at_zero: worth of a right answer of no length.
        right_at_max: worth of a right answer of all the length.
        wrong_at_zero: worth of a wrong answer of no length.
        wrong_at_max: worth of a wrong answer of all the length.
        exceeded: worth of what ran into the limit, right or wrong.
        **accuracy: options of :class:`.Accuracy`, which decides what is right.

    Raises:
        ValueError: for values under which it would pay to be wrong, or to run into the limit.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        max_tokens: int,
        right_at_zero: float = 2.0,
        right_at_max: float = 1.0,
        wrong_at_zero: float = -10.0,
        wrong_at_max: float = 0.0,
        exceeded: float = -10.0,
        **accuracy: Any,
    ) -> None:
        super().__init__(tags, **accuracy)
        if max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens}: expected at least one token")
        for place, right, wrong in (("zero", right_at_zero, wrong_at_zero), ("max", right_at_max, wrong_at_max)):
            if right < wrong:
                raise ValueError(
                    f"right_at_{place}={right}, wrong_at_{place}={wrong}: it would pay to be wrong; raise the first"
                )
        if exceeded > wrong_at_max:
            raise ValueError(
                f"exceeded={exceeded}, wrong_at_max={wrong_at_max}: it would pay to run into the limit; lower the first"
            )
        self.max_tokens, self.exceeded = max_tokens, exceeded
        self.right, self.wrong = (right_at_zero, right_at_max), (wrong_at_zero, wrong_at_max)

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """What the answer is worth; the outcome is that of the accuracy."""
        verdict = super().__call__(prompt, completion)
        if not verdict.outcome.counts:
            return verdict
        length = len(completion.token_ids)
        if completion.finish_reason == "length" or length >= self.max_tokens:
            return RewardScore(self.exceeded, verdict.outcome, f"{length} tokens: ran into the limit")
        right = verdict.value == 1
        at_zero, at_max = self.right if right else self.wrong
        value = at_max + (at_zero - at_max) * (1 + math.cos(math.pi * length / self.max_tokens)) / 2
        return RewardScore(value, verdict.outcome, f"{'right' if right else 'wrong'}, {length} tokens")
