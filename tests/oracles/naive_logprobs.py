"""Log-probability and entropy of chosen tokens by loops over Python floats."""

import math


def naive_selected_logprobs(hidden, weight, targets, *, bias=None, temperature=1.0, softcap=None, scale=1.0):
    """Two lists: log p of each target, entropy of each distribution.

    >>> naive_selected_logprobs([[1.0]], [[0.0], [0.0]], [1])  # a fair coin
    ([-0.6931471805599453], [0.6931471805599453])
    """
    logprobs, entropies = [], []
    for state, target in zip(hidden, targets, strict=True):
        logits = []
        for v, row in enumerate(weight):
            z = sum(h * w for h, w in zip(state, row, strict=True)) + (bias[v] if bias is not None else 0.0)
            z = scale * z
            if softcap is not None:
                z = softcap * math.tanh(z / softcap)
            logits.append(z / temperature)
        normaliser = math.log(sum(math.exp(z) for z in logits))
        logprobs.append(logits[target] - normaliser)
        entropies.append(-sum(math.exp(z - normaliser) * (z - normaliser) for z in logits))
    return logprobs, entropies
