"""What `benchmarks.run` measures with, and which systems beside ours."""

import sys
from typing import NamedTuple

PEERS = ("eager", "compile")


class Options(NamedTuple):
    """What the parts need to know."""

    arguments: str
    quick: bool
    threads: int
    rounds: int
    budget: float  # seconds of a comparison, after which three rounds are enough; 0: one call a turn
    kinds: tuple
    factors: tuple
    batches: tuple
    side: int
    tasks: tuple
    peers: tuple
    compile_batches: tuple

    def peers_at(self, factor: float, batch: int) -> list[str]:
        """The peers of a case: torch.compile, which takes a minute for each, is for the narrowest models."""
        compiles = factor == min(self.factors) and batch in self.compile_batches
        return [peer for peer in self.peers if peer != "compile" or compiles]

    @staticmethod
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)
