"""Compare: two runs, item by item. Only what both were asked is compared, so that no other item can move the result."""

from __future__ import annotations

from dataclasses import dataclass

from mgv.errors import UsageError
from mgv.evaluate.metrics import paired_bootstrap
from mgv.evaluate.results import Run
from mgv.evaluate.retrieval import is_hit
from mgv.evaluate.scores import TASKS, Scored, mean
from mgv.registry.evaluation import Facts

MIN_ITEMS = 10
"""Of fewer items a bootstrap draws the same few again and again, and its interval says nothing."""
JUDGED = frozenset(
    {"accuracy", "score", "correctness", "detail", "context", "temporal", "consistency"}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A metric of two runs over the items that both have."""

    metric: str
    a: float
    b: float
    difference: float
    """b - a."""
    low: float
    """Of its 95 % interval, by paired bootstrap."""
    high: float
    p_value: float
    count: int

    @property
    def is_clear(self) -> bool:
        """Whether chance alone hardly explains it: the interval leaves out 0, and there are MIN_ITEMS behind it."""
        return self.count >= MIN_ITEMS and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """An item that is right in one run and wrong in the other."""

    task: str
    key: str
    text: str
    to: str
    """`right` or `wrong`: what it is in the second run."""
    a: str
    b: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two runs beside each other."""

    differences: tuple[Difference, ...]
    flips: tuple[Flip, ...]
    only_a: int
    """Items that only the first run has."""
    only_b: int
    warnings: tuple[str, ...]
    """Why some of it may not be comparable."""


def compare(a: Run, b: Run, *, num_bootstrap: int = 1000, seed: int = 0) -> Comparison:
    """The second run against the first. Raises UsageError when they share no item."""
    ours = {(row.task, row.key): row for row in a.rows if "." not in row.task}
    theirs = {(row.task, row.key): row for row in b.rows if "." not in row.task}
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise UsageError("the two runs share no item: were they asked the same questions?")
    pairs = [(ours[key], theirs[key]) for key in shared]
    return Comparison(
        differences=tuple(_differences(pairs, num_bootstrap, seed)),
        flips=tuple(flip for pair in pairs if (flip := _flip(*pair))),
        only_a=len(ours) - len(shared),
        only_b=len(theirs) - len(shared),
        warnings=tuple(_warnings(a.facts, b.facts, pairs)),
    )


def _differences(
    pairs: list[tuple[Scored, Scored]], num_bootstrap: int, seed: int
) -> list[Difference]:
    """For every score that both rows of a pair have."""
    differences: list[Difference] = []
    for task, prefix in TASKS.items():
        own = [(a, b) for a, b in pairs if a.task == task]
        for name in sorted({name for a, b in own for name in a.scores.keys() & b.scores.keys()}):
            both = [(a, b) for a, b in own if name in a.scores and name in b.scores]
            first, second = [a.scores[name] for a, _ in both], [b.scores[name] for _, b in both]
            groups, weights = [a.group for a, _ in both], [a.weight for a, _ in both]
            low, high, p_value = paired_bootstrap(
                second,
                first,
                num_resamples=num_bootstrap,
                seed=seed,
                groups=groups,
                weights=weights,
            )
            mean_a, mean_b = mean(first, weights), mean(second, weights)
            differences.append(
                Difference(
                    metric=f"{prefix}.{name}",
                    a=mean_a,
                    b=mean_b,
                    difference=mean_b - mean_a,
                    low=low,
                    high=high,
                    p_value=p_value,
                    count=len(both),
                )
            )
    return differences


def _flip(a: Scored, b: Scored) -> Flip | None:
    before, after = _is_right(a), _is_right(b)
    if before is None or after is None or before == after:
        return None
    answers = (a.answer or a.error or "no answer", b.answer or b.error or "no answer")
    if a.task == "query":
        answers = (_first(a), _first(b))
    return Flip(
        task=a.task,
        key=a.key,
        text=a.text,
        to="right" if after else "wrong",
        a=answers[0],
        b=answers[1],
    )


def _is_right(row: Scored) -> bool | None:
    if row.task == "query":
        hit = is_hit(row)
        return None if hit != hit else bool(hit)
    return bool(row.scores["accuracy"]) if "accuracy" in row.scores else None


def _first(row: Scored) -> str:
    if not row.found:
        return "nothing"
    first = row.found[0]
    return (
        f"{first.video} {first.start_s:.1f}-{first.end_s:.1f} s"
        if first.end_s is not None
        else first.video
    )


def _warnings(a: Facts, b: Facts, pairs: list[tuple[Scored, Scored]]) -> list[str]:
    warnings = []
    names = {
        name for one, other in pairs for name in one.scores.keys() & other.scores.keys()
    } & JUDGED
    if a.judge != b.judge and names:
        warnings.append(
            f"judged by different judges ({_named(a)}; {_named(b)}): {', '.join(sorted(names))} say nothing"
        )
    for key, asked in a.sets().items():
        if key in b.sets() and asked.digest != b.sets()[key].digest:
            warnings.append(f"the {key} are not the same set: only ids that both have are compared")
    different = sum(
        (one.text, one.reference, one.gold) != (other.text, other.reference, other.gold)
        for one, other in pairs
    )
    if different:
        warnings.append(f"{different} items have the same id but another question or reference")
    return warnings


def _named(facts: Facts) -> str:
    judge = facts.judge or {}
    return (
        " ".join(
            str(judge[key]) for key in ("judge", "model", "version", "prompt_hash") if key in judge
        )
        or "none"
    )
