"""What a cluster has room for: its nodes, and those that its autoscaler may add."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeKind:
    """Nodes that are alike.

    Attributes:
        cpus, gpus: Of one node.
        count: How many there are, or may come to be.
    """

    cpus: float
    gpus: float
    count: int = 1

    def fits(self, cpus: float, gpus: float) -> int:
        """Trials at once on one node."""
        most = [self.cpus / cpus if cpus else math.inf, self.gpus / gpus if gpus else math.inf]
        return math.floor(min(most) + 1e-9)


@dataclass(frozen=True)
class Capacity:
    """What a cluster has, and what its autoscaler may add to it.

    Attributes:
        nodes: Nodes that are there now.
        addable: Nodes that the autoscaler may have in all; empty where nothing scales the
            cluster.
        most_added: Nodes that it may have at once, of all kinds together; None: no such limit.
    """

    nodes: tuple[NodeKind, ...]
    addable: tuple[NodeKind, ...] = ()
    most_added: int | None = None

    @property
    def largest(self) -> dict[str, float]:
        """The most that one node has of each."""
        kinds = (*self.nodes, *self.addable)
        return {
            "CPU": max((kind.cpus for kind in kinds), default=0.0),
            "GPU": max((kind.gpus for kind in kinds), default=0.0),
        }

    def fits(self, cpus: float, gpus: float) -> int:
        """Trials at once on all nodes that there may be."""
        # Nodes of an autoscaler's kind are among those it may have: they are not counted twice.
        ours = {(kind.cpus, kind.gpus) for kind in self.addable}
        there = [node for node in self.nodes if (node.cpus, node.gpus) not in ours]
        trials = sum(node.count * node.fits(cpus, gpus) for node in there)
        left = math.inf if self.most_added is None else self.most_added
        for kind in sorted(self.addable, key=lambda kind: -kind.fits(cpus, gpus)):
            nodes = int(min(kind.count, left))
            trials += nodes * kind.fits(cpus, gpus)
            left -= nodes
        return trials

    def text(self) -> str:
        """In words: what there is, and what may come."""
        parts = [f"{_nodes(self.nodes)} now"]
        if self.addable:
            limit = sum(kind.count for kind in self.addable)
            most = self.most_added if self.most_added is not None else limit
            at_once = f", {most} at once" if most < limit else ""
            parts.append(f"its autoscaler may have {_nodes(self.addable)}{at_once}")
        return "; ".join(parts)


def _nodes(kinds: Sequence[NodeKind]) -> str:
    alike = Counter[tuple[float, float]]()
    for kind in kinds:
        alike[kind.cpus, kind.gpus] += kind.count
    parts = [f"{count} x {amount(cpus, gpus)}" for (cpus, gpus), count in sorted(alike.items())]
    return ", ".join(parts) or "no node"


def amount(cpus: float, gpus: float) -> str:
    """CPUs and GPUs in words."""
    return f"{cpus:g} CPU" + (f" + {gpus:g} GPU" if gpus else "")
