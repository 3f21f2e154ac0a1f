"""Which image is in which split, decided by content and seed alone.

Groups of duplicates are put in the order of a hash of (seed, group) and dealt out in that order:
to test while its quota lasts, then to validation, the rest to train. Quotas are counted per class.

The trade-off: a threshold on each group's own hash would never move an image when others are
added, but would leave counts to chance (200 +- 13 test images of 1,000). Quotas make counts exact
(never above; below by less than the largest group of duplicates), and as the order of old images
stays, only those near a cut move when others come: about 1 in 200 when a tenth is added.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

WHOLE_SHARES = {"test": Fraction(15, 100), "validation": Fraction(15, 100)}
TEST_OF_VALIDATION = {"test": Fraction(20, 100)}
VALIDATION_OF_TRAIN = {"validation": Fraction(15, 100)}


@dataclass(frozen=True)
class Member:
    """An image to be assigned to a split."""

    label: str
    group: str


def deal(
    members: Iterable[Member], shares: Mapping[str, Fraction], rest: str, seed: int
) -> dict[str, str]:
    """The split of each group.

    Args:
        members: the images, in any order.
        shares: the part of every class that each split gets, at least one image.
        rest: the split that gets what is left.
        seed: another seed, another order.
    """
    labels_of_group: dict[str, Counter[str]] = defaultdict(Counter)
    class_sizes: Counter[str] = Counter()
    for member in members:
        labels_of_group[member.group][member.label] += 1
        class_sizes[member.label] += 1
    free = {
        split: Counter({label: quota(share, size) for label, size in class_sizes.items()})
        for split, share in shares.items()
    }
    splits = {}
    for group in sorted(labels_of_group, key=lambda group: order_key(seed, group)):
        needed = labels_of_group[group]
        splits[group] = next((split for split in shares if needed <= free[split]), rest)
        if splits[group] != rest:
            free[splits[group]].subtract(needed)
    return splits


def quota(share: Fraction, size: int) -> int:
    """Images of a class that a split gets: the nearest count, halves up, at least 1."""
    return max(1, int(share * size + Fraction(1, 2)))


def order_key(seed: int, group: str) -> str:
    """A hash that is uniform over groups and independent between seeds."""
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()
