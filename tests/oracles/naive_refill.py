"""Dynamic sampling with a queue, as a list of words and a loop."""

from __future__ import annotations

TEACHES = {"mixed": True, "other": True, "zero": False}


class NaiveRefill:
    """One rank's rollouts: how many prompts each draw takes, and which groups are used.

    Args:
        groups: that a rollout needs.
        refills: at most.
        age: rollouts that a group may wait.
    """

    def __init__(self, groups: int, refills: int, age: int) -> None:
        self.groups, self.refills, self.age = groups, refills, age
        self.waiting: list[tuple[int, str]] = []

    def rollout(self, number: int, stream: list[str]) -> tuple[list[str], list[int]]:
        """Names of the groups that are used, and the sizes of the draws from the stream."""
        have = []
        for born, name in self.waiting:
            if born + self.age >= number:
                have.append((born, name))
        drawn: list[int] = []
        place, alive = 0, 0
        count = max(0, self.groups - len(have))
        while True:
            drawn.append(count)
            for _ in range(count):
                name = stream[place]
                place += 1
                if TEACHES[name]:
                    alive += 1
                    have.append((number, name))
            missing = self.groups - len(have)
            if missing <= 0 or len(drawn) == self.refills + 1:
                break
            count = self.groups
            if alive:
                should_do = 1
                while should_do * alive < missing * place:
                    should_do += 1
                count = min(count, len(drawn) * should_do)
        self.waiting = []
        for born, name in have[self.groups :]:
            if born + self.age >= number + 1:
                self.waiting.append((born, name))
        return [name for _, name in have[: self.groups]], drawn
