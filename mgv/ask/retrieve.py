"""Retrieve: the channels' hits → moments.

Weighted reciprocal rank fusion (Cormack, Clarke and Büttcher 2009) of moments, with each one's share scaled by
how sure its channel is: rank r in channel c counts weight_c · relevance / (k + r). Hits of one channel that lie
close in time are one before they are ranked, so a long scene takes one rank, not a hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mgv.library.search import Hit

AGAIN = 0.3
"""Every further moment of a video counts this much of the one before: five results should not be one video's."""
WEAK = 0.5
"""A hit less than this share as relevant as its neighbour's does not lengthen the neighbour's moment."""
SURE = 0.7
"""A channel's hit lengthens another channel's moment when it counts at least this share of what found the moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How far hits of one video reach for each other."""

    merge_gap_s: float
    moment_length_s: float

    def joins(self, one: Hit | MomentSpan, other: Hit | MomentSpan) -> bool:
        """Whether two stretches of one video are one moment: near, and not too long together."""
        apart_s = max(one.start_s, other.start_s) - min(one.end_s, other.end_s)
        length_s = max(one.end_s, other.end_s) - min(one.start_s, other.start_s)
        longest_s = max(self.moment_length_s, one.end_s - one.start_s, other.end_s - other.start_s)
        return (
            one.video_id == other.video_id and apart_s <= self.merge_gap_s and length_s <= longest_s
        )


@dataclass
class MomentSpan:
    """A moment while it is being put together."""

    video_id: str
    start_s: float
    end_s: float
    shares: dict[str, float] = field(default_factory=dict)
    """Channel → what its best hit here counts."""
    standing: float = 1.0
    """What the score is multiplied with: less than 1 for a video's further moments."""

    @property
    def score(self) -> float:
        return self.standing * sum(self.shares.values())

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that found it, the one that counts most first."""
        return tuple(sorted(self.shares, key=lambda name: -self.shares[name]))


def fuse(
    hits: Mapping[str, Sequence[Hit]], weights: Mapping[str, float], *, rrf_k: float, reach: Reach
) -> list[MomentSpan]:
    """Ranked hits of each channel → moments, best first. A score is in (0, 1]; 1 is a sure first in every channel."""
    best = sum(weights.values()) / (rrf_k + 1)
    shares = [
        (weights[name] * hit.relevance / (rrf_k + rank) / best, name, hit)
        for name, ranked in hits.items()
        if weights[name] > 0
        for rank, hit in enumerate(merge(ranked, reach), start=1)
    ]
    shares.sort(key=lambda share: (-share[0], share[2].video_id, share[2].start_s))
    moments: dict[str, list[MomentSpan]] = {}
    for share, name, hit in shares:
        siblings = moments.setdefault(hit.video_id, [])
        home = next((moment for moment in siblings if reach.joins(moment, hit)), None)
        if home is None:
            home = MomentSpan(video_id=hit.video_id, start_s=hit.start_s, end_s=hit.end_s)
            siblings.append(home)
        if share >= SURE * max(home.shares.values(), default=0.0):
            home.start_s, home.end_s = min(home.start_s, hit.start_s), max(home.end_s, hit.end_s)
        home.shares.setdefault(name, share)
    for siblings in moments.values():
        for place, moment in enumerate(sorted(siblings, key=_best_first)):
            moment.standing = AGAIN**place
    return sorted((moment for siblings in moments.values() for moment in siblings), key=_best_first)


def _best_first(moment: MomentSpan) -> tuple[float, str, float]:
    return -moment.score, moment.video_id, moment.start_s


def merge(hits: Iterable[Hit], reach: Reach) -> list[Hit]:
    """One channel's hits, best first, with those that are one moment joined: as relevant as the best of them."""
    merged: list[Hit] = []
    for hit in hits:
        for place, home in enumerate(merged):
            if reach.joins(home, hit):
                if hit.relevance >= WEAK * home.relevance:
                    start_s, end_s = min(home.start_s, hit.start_s), max(home.end_s, hit.end_s)
                    merged[place] = replace(home, start_s=start_s, end_s=end_s)
                break
        else:
            merged.append(hit)
    return merged
