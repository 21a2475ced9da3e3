"""Report: a run as one HTML page that needs nothing else. Every text of the run is escaped; no script runs in it."""

from __future__ import annotations

import base64
import html
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from mgv.errors import MgvError
from mgv.evaluate.metrics import calibration_bins, spoken_words
from mgv.evaluate.results import SETS, Run
from mgv.evaluate.retrieval import CONTROLS, PRIOR, is_hit
from mgv.evaluate.scores import TASKS, Figure, Scored, confidences
from mgv.evaluate.sets.published import QUERIES, QUESTIONS, differences
from mgv.evaluate.spans import Span
from mgv.records import clock
from mgv.registry.evaluation import SetFacts

logger = logging.getLogger(__name__)

NUM_WORST = 12
NUM_CHANGES = 8
MANY_WORDS = 2000
"""Of a transcript so many words are looked through for what was heard otherwise."""
THUMBNAIL_PX = 240
PARTS = {
    "qa": "The model's answers", "ask": "The library's answers", "retrieval": "Search",
    "transcripts": "Speech recognition",
}  # fmt: skip
"""What the metrics of each prefix are about."""
_ANSWERS = (
    "accuracy", "score", "correctness", "detail", "context", "temporal", "consistency", "exact_match", "token_f1",
    "yes_no_accuracy", "abstained", "citation_precision", "citation_recall",
)  # fmt: skip
HEADLINES = {
    "qa": _ANSWERS,
    "ask": _ANSWERS,
    "retrieval": (
        "recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10", "map", "moment_recall_at_1_iou_0_3",
        "moment_recall_at_1_iou_0_5", "moment_recall_at_1_iou_0_7", "moment_recall_at_5_iou_0_5", "iou",
        "moment_map", "moment_map_iou_0_5", "didemo_rank_at_1", "didemo_rank_at_5", "didemo_iou", "clip_recall_at_1",
        "clip_recall_at_3", "nothing_found",
    ),
    "transcripts": ("word_error_rate",),
}  # fmt: skip
CONTROL_COLUMNS = (
    "recall_at_1", "mrr", "moment_recall_at_1_iou_0_3", "moment_recall_at_1_iou_0_5", "iou",
    "didemo_rank_at_1", "didemo_rank_at_5", "clip_recall_at_1", "nothing_found",
)  # fmt: skip
SPELT = {
    "didemo": "DiDeMo", "iou": "IoU", "map": "mAP", "mrr": "MRR", "ndcg": "nDCG", "f1": "F1", "auroc": "AUROC",
}  # fmt: skip
NOT_SHARES = frozenset({"score", "correctness", "detail", "context", "temporal", "consistency"})
"""Scores of 0 to 5; all others are 0 to 1 and shown in per cent."""

Look = Callable[[Span], bytes | None]
"""A place in a video → a small JPEG, or None where it cannot be had."""

_CSS = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --fill: #2f6fb3; --pale: #e9f0f8; --bad: #a83232; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); } .bad { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } td.n, th.n { text-align: right; }
td.n { white-space: nowrap; } small { color: var(--soft); font-weight: 400; }
tr.ours td { font-weight: 600; background: var(--pale); } svg { display: block; }
.items { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
.item { border: 1px solid var(--line); border-radius: 6px; overflow: hidden; }
.item img { display: block; width: 100%; height: 9rem; object-fit: contain; background: #10151c; }
.item div { padding: .6rem .8rem; overflow-wrap: anywhere; } .item p { margin: .15rem 0; }
tr.part th { padding-top: 1rem; color: var(--ink); font-size: 1rem; } td:last-child, th:last-child { padding-right: 0; }
.n + :not(.n) { padding-left: .6rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 1rem 0 0; }
figcaption { padding-left: 24px; color: var(--soft); } code { font-size: .85em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
@media (max-width: 44rem) { .bar { display: none; } body { padding: 1rem .8rem 3rem; } }
"""


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of the text around them."""


def escape(text: str) -> str:
    """A text of the run as HTML that shows it and nothing else."""
    return html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text))


def render(run: Run, look: Look = lambda place: None) -> str:
    """The page; `look` gives the thumbnails of the worst items."""
    sections = [
        _head(run),
        _scores(run),
        _controls(run),
        _transcripts(run),
        *(_published(run, key, prefix) for key, prefix in zip(SETS, PARTS, strict=True)),
        _kinds(run),
        _confidence(run),
        _failures(run),
        _worst(run, look),
        _facts(run),
    ]
    title = escape(_title(run))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{_CSS}</style></head><body>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _title(run: Run) -> str:
    parts = [
        part for key, part in zip(SETS, PARTS.values(), strict=True) if key in run.facts.sets()
    ]
    return f"Evaluation: {', '.join(part[0].lower() + part[1:] for part in parts)}"


def _head(run: Run) -> str:
    facts, sentences = run.facts, []
    library = f"library {(facts.library or '')[:12]}"
    if facts.questions and facts.model:
        sentences.append(
            f"{_asked(facts.questions, 'questions')} answered by model {facts.model.model[:12]}."
        )
    if facts.library_questions:
        sentences.append(
            f"{_asked(facts.library_questions, 'questions')} answered by {library} (search and ask)."
        )
    if judge := facts.judge:
        named = " ".join(str(judge[key]) for key in ("judge", "model") if key in judge)
        sentences.append(f"Open answers judged by {named}, version {judge['version']}.")
    if facts.queries:
        sentences.append(f"{_asked(facts.queries, 'queries')} searched in {library}.")
    if facts.transcripts:
        sentences.append(
            f"{_asked(facts.transcripts, 'references')} held against what {library} heard."
        )
    sentences.append(f"Made {facts.made} in {facts.time_s:.0f} s by mgv {facts.mgv}.")
    lines = "".join(f'<p class="soft">{escape(line)}</p>' for line in sentences)
    return f"<h1>{escape(_title(run))}</h1>{lines}"


def _asked(asked: SetFacts, what: str) -> str:
    return f"{asked.count} {what} of {asked.name}"


def _scores(run: Run) -> str:
    rows: list[Sequence[str]] = []
    for prefix, names in HEADLINES.items():
        shown = [
            (name, run.figures[f"{prefix}.{name}"])
            for name in names
            if f"{prefix}.{name}" in run.figures
        ]
        rows += [[PARTS[prefix]]] if shown else []
        rows += [
            [escape(_words(name)), *_cells(name, figure), str(figure.count),
             _bar(figure, 5.0 if _is_score(name) else 1.0)]
            for name, figure in shown
        ]  # fmt: skip
    note = "Intervals by bootstrap over videos: how far the score would move with other videos of the kind."
    head = ("", "*value", "*95 % interval", "*items", "")
    return f'<h2>Scores</h2><p class="soft">{note}</p>{_table(head, rows)}'


def _words(name: str) -> str:
    name = name.replace("_iou_0_", "_iou_0.").replace("coverage_0_", "coverage_0.")
    return " ".join(SPELT.get(word, word) for word in name.split("_"))


def _is_score(metric: str) -> bool:
    return metric.rpartition(".")[2] in NOT_SHARES


def _value(metric: str, value: float) -> str:
    return f"{value:.2f}" if _is_score(metric) else f"{100 * value:.1f} %"


def _cells(metric: str, figure: Figure) -> list[str]:
    interval = f"{_value(metric, figure.low).removesuffix(' %')} to {_value(metric, figure.high)}"
    return [_value(metric, figure.value), interval]


def _stacked(metric: str, figure: Figure) -> str:
    """A value over its interval, for narrow columns."""
    value, interval = _cells(metric, figure)
    return f"{value}<br><small>{interval}</small>"


def _bar(figure: Figure, full: float) -> str:
    """A value as a bar, its interval as a line over it."""
    width = 220
    value, low, high = (
        width * max(0.0, min(1.0, each / full)) for each in (figure.value, figure.low, figure.high)
    )
    return (
        f'<svg class="bar" width="{width}" height="16" role="img">'
        f'<rect width="{width}" height="10" y="3" fill="#eef1f5"/>'
        f'<rect width="{value:.1f}" height="10" y="3" fill="#2f6fb3"/>'
        f'<path d="M{low:.1f} 8H{high:.1f}M{low:.1f} 4V12M{high:.1f} 4V12" stroke="#1c2430" fill="none"/></svg>'
    )


def _controls(run: Run) -> str:
    columns = [name for name in CONTROL_COLUMNS if f"retrieval.{name}" in run.figures]
    if not columns:
        return ""
    rows = []
    for setup in ("", *CONTROLS, PRIOR):
        prefix = f"retrieval.{setup}" if setup else "retrieval"
        figures = [run.figures.get(f"{prefix}.{name}") for name in columns]
        cells = [
            _stacked(name, figure) if figure else ""
            for name, figure in zip(columns, figures, strict=True)
        ]
        rows.append([escape(setup.replace("_", " ") or "all channels"), *cells])
    head = ("setup", *(f"*{_words(name)}" for name in columns))
    note = (
        "The same queries with parts of the search left out, and with a list that does not read the query. What all "
        "channels gain over the best control is what joining them is worth; a gain within its interval may be chance."
    )
    table = _table(head, rows, marked=0)
    return f'<h2>Search and its controls</h2><p class="soft">{note}</p>{table}'


def _transcripts(run: Run) -> str:
    """What was heard otherwise than it was said, video by video."""
    heard = sorted(run.of("transcript"), key=lambda row: (-row.scores["word_error_rate"], row.key))
    if not heard:
        return ""
    rows = [
        [escape(row.key), _value("", row.scores["word_error_rate"]), f"{row.weight:.0f}",
         "<br>".join(f"{escape(said)} → {escape(got)}" for said, got in _misheard(row))]
        for row in heard[:NUM_WORST]
    ]  # fmt: skip
    transcripts = run.facts.transcripts
    assert transcripts is not None, "there are rows of it"
    note = f"Word error rate of {transcripts.transcriber}; less is better. Words are compared in "
    head = ("video", "*error rate", "*words", "said → heard")
    return (
        f'<h2>Speech recognition</h2><p class="soft">{escape(note + transcripts.normalised)}.</p>'
        f"{_table(head, rows)}"
    )


def _misheard(row: Scored) -> list[tuple[str, str]]:
    """The first stretches where a transcript leaves its reference: (said, heard)."""
    said, heard = (
        spoken_words(row.reference or "")[:MANY_WORDS],
        spoken_words(row.answer or "")[:MANY_WORDS],
    )
    changes = SequenceMatcher(None, said, heard, autojunk=False).get_opcodes()
    pairs = [
        (" ".join(said[a:b]), " ".join(heard[c:d])) for tag, a, b, c, d in changes if tag != "equal"
    ]
    return [(one or "(nothing)", other or "(nothing)") for one, other in pairs[:NUM_CHANGES]]


def _published(run: Run, key: str, prefix: str) -> str:
    table = {"qa": QUESTIONS, "ask": QUESTIONS, "retrieval": QUERIES}.get(prefix, {})
    others = table.get(run.facts.sets()[key].format, ()) if key in run.facts.sets() else ()
    names = [
        n
        for n in dict.fromkeys(n for other in others for n in other.metrics)
        if f"{prefix}.{n}" in run.figures
    ]
    if not names:
        return ""
    rows = [["this run", *(_stacked(n, run.figures[f"{prefix}.{n}"]) for n in names), ""]]
    for other in others:
        shown = {None: "", True: "with subtitles", False: "without subtitles"}[other.subtitles]
        note = "; ".join(part for part in (shown, other.note) if part)
        values = (_value(n, other.metrics[n]) if n in other.metrics else "" for n in names)
        rows.append([escape(other.system), *values, f'<span class="soft">{escape(note)}</span>'])
    items = "".join(f"<li>{escape(line)}</li>" for line in differences(run.facts, key))
    head = ("system", *(f"*{_words(n)}" for n in names), "as published")
    title = f"Published figures: {escape(run.facts.sets()[key].format)}"
    return f"<h2>{title}</h2>{_table(head, rows, marked=0)}<p>What differs:</p><ul>{items}</ul>"


def _kinds(run: Run) -> str:
    shown = ("accuracy", "score", "recall_at_1", "moment_recall_at_1_iou_0_5", "nothing_found")
    by_part: dict[str, list[list[str]]] = {prefix: [] for prefix in PARTS}
    for metric, figure in run.figures.items():
        prefix, *middle, name = metric.split(".")
        if middle[:1] == ["kind"] and name in shown:
            kind = escape(middle[1].replace("_", " "))
            by_part[prefix].append(
                [kind, escape(_words(name)), *_cells(name, figure), str(figure.count)]
            )
    rows = [row for prefix, own in by_part.items() if own for row in ([PARTS[prefix]], *own)]
    head = ("kind", "score", "*value", "*95 % interval", "*items")
    return f"<h2>By kind</h2>{_table(head, rows)}" if rows else ""


def _confidence(run: Run) -> str:
    shown = ("auroc", "calibration_error", "accuracy_at_coverage")
    rows: list[Sequence[str]] = []
    for prefix, part in PARTS.items():
        names = [
            name
            for name in run.metrics
            if name.startswith(tuple(f"{prefix}.{each}" for each in shown))
        ]
        rows += [[part]] if names else []
        rows += [
            [escape(_words(name.removeprefix(f"{prefix}."))), f"{run.metrics[name]:.3f}"]
            for name in names
        ]
    if not rows:
        return ""
    pictures = "".join(
        f"<figure>{_reliability(calibration_bins(sure, right))}<figcaption>{PARTS[TASKS[task]]}</figcaption></figure>"
        for task in ("question", "ask")
        for sure, right in [confidences(run.of(task), "accuracy")]
        if len(sure) > 1
    )
    note = (
        "AUROC is the chance that a right answer was given with more confidence than a wrong one (0.5: no better than "
        "a coin). In the pictures, confidence goes across and the share of right answers up, a dot's size is its share "
        "of the answers; on the line both agree."
    )
    return (
        f'<h2>Confidence</h2><p class="soft">{note}</p>{_table(("", "*value"), rows)}'
        f'<div class="pictures">{pictures}</div>'
    )


def _reliability(bins: Iterable[tuple[float, float, float]]) -> str:
    size, edge = 240, 24
    points = "".join(
        f'<circle cx="{edge + size * x:.1f}" cy="{8 + size * (1 - y):.1f}" r="{3 + 12 * share:.1f}" '
        'fill="#2f6fb3" fill-opacity=".7"/>'
        for x, y, share in bins
    )
    return (
        f'<svg width="{size + edge + 16}" height="{size + 32}" role="img" aria-label="reliability">'
        f'<rect x="{edge}" y="8" width="{size}" height="{size}" fill="none" stroke="#dfe4ea"/>'
        f'<path d="M{edge} {8 + size}L{edge + size} 8" stroke="#5b6675" stroke-dasharray="4 4"/>{points}'
        f'<text x="{edge}" y="{size + 26}" font-size="11" fill="#5b6675">0</text>'
        f'<text x="{edge + size - 8}" y="{size + 26}" font-size="11" fill="#5b6675">1</text>'
        f'<text x="{edge + size // 2 - 30}" y="{size + 26}" font-size="11" fill="#5b6675">confidence</text></svg>'
    )


def _failures(run: Run) -> str:
    failed = [row for row in run.rows if row.error or row.judge_error]
    missing = {key: asked.missing for key, asked in run.facts.sets().items() if asked.missing}
    unscored = run.facts.transcripts.unscored if run.facts.transcripts else {}
    if not failed and not missing and not unscored:
        return ""
    paragraphs = "".join(
        f"<p>{len(names)} videos of the {_words(key)} are missing, with {sum(names.values())} entries: "
        f"{_listed(names)}</p>"
        for key, names in missing.items()
    )
    if unscored:
        reasons = [f"{video}: {reason}" for video, reason in unscored.items()]
        paragraphs += f"<p>{len(unscored)} transcripts are not scored. {_listed(reasons, '; ')}</p>"
    rows = [
        [
            escape(row.key),
            "answer" if row.error else "verdict",
            escape(row.error or row.judge_error),
        ]
        for row in failed[:200]
    ]
    note = "An answer that failed counts as wrong; a verdict that failed is left out of the means."
    table = f'<p class="soft">{note}</p>{_table(("item", "no", "because"), rows)}' if rows else ""
    return f"<h2>Failed and missing</h2>{paragraphs}{table}"


def _listed(names: Iterable[str], between: str = ", ") -> str:
    """Names in order, the first twenty, escaped."""
    ordered = sorted(names)
    return escape(between.join(ordered[:20])) + (" …" if len(ordered) > 20 else "")


def _worst(run: Run, look: Look) -> str:
    cards = "".join(_card(row, look) for row in worst(run))
    return f'<h2>Worst items</h2><div class="items">{cards}</div>' if cards else ""


def worst(run: Run) -> list[Scored]:
    """What went most wrong, of each task as much as there is room: failed, then wrong and sure of it; missed."""
    by_task: list[list[Scored]] = []
    for task in ("question", "ask"):
        wrong = [row for row in run.of(task) if row.scores.get("accuracy", _low_score(row)) < 0.5]
        wrong.sort(
            key=lambda row: (
                not row.error,
                row.scores.get("score", 0.0),
                -(row.confidence or 0.0),
                row.key,
            )
        )
        by_task.append(wrong)
    missed = [row for row in run.of("query") if is_hit(row) < 1]
    missed.sort(
        key=lambda row: (
            row.scores.get("iou", 0.0),
            row.scores.get("mrr", 0.0),
            -(row.confidence or 0.0),
            row.key,
        )
    )
    by_task.append(missed)
    turns = [(place, task) for task, rows in enumerate(by_task) for place in range(len(rows))]
    chosen = sorted(turns)[:NUM_WORST]  # the worst of each task, then the next of each
    return [
        by_task[task][place] for place, task in sorted(chosen, key=lambda turn: (turn[1], turn[0]))
    ]


def _low_score(row: Scored) -> float:
    """For items with aspects only: their mean, 0 to 1."""
    scored = [value for name, value in row.scores.items() if name in NOT_SHARES]
    return sum(scored) / len(scored) / 5 if scored else 1.0


def _card(row: Scored, look: Look) -> str:
    place = row.found[0] if row.found else row.place
    jpeg = look(place) if place else None
    picture = (
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
        if jpeg
        else ""
    )
    lines = [f"<p><b>{escape(row.text)}</b></p>"]
    if row.task != "query":
        lines.append(f"<p>answer: {escape(row.answer or 'none')}</p>")
        lines.append(
            f"<p>reference: {escape(row.reference if row.reference is not None else 'nothing answers this')}</p>"
        )
    for label, spans in (
        ("found" if row.task == "query" else "cited", row.found[:3]),
        ("right", row.gold[:3]),
    ):
        lines += [f'<p class="soft">{label}: {escape(_where(span))}</p>' for span in spans]
    if row.task == "query" and not row.gold:
        lines.append('<p class="soft">right: nothing</p>')
    if row.error:
        lines.append(f'<p class="bad">{escape(row.error)}</p>')
    sure = f", confidence {row.confidence:.2f}" if row.confidence is not None else ""
    lines.append(f'<p class="soft"><code>{escape(row.key)}</code>{sure}</p>')
    return f'<div class="item">{picture}<div>{"".join(lines)}</div></div>'


def _where(span: Span) -> str:
    name = Path(span.video).name
    return name if span.end_s is None else f"{name} {clock(span.start_s)}-{clock(span.end_s)}"


def _facts(run: Run) -> str:
    rows = [
        [escape(f"{key} {name}"), f"<code>{escape(str(value)[:300])}</code>"]
        for key, values in run.facts.as_json().items()
        for name, value in (values if isinstance(values, dict) else {"": values}).items()
        if name != "missing"
    ]
    return f"<h2>What was run</h2>{_table(('', ''), rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int | None = None) -> str:
    """A table of HTML cells; columns whose head begins with * are numbers, the row `marked` stands out.

    A row of one cell, a plain text, is the heading of those below it.
    """
    ours = ' class="ours"'
    numeric = [name.startswith("*") for name in head]
    style = [' class="n"' if number else "" for number in numeric]
    top = "".join(
        f"<th{s}>{escape(name.removeprefix('*'))}</th>" for name, s in zip(head, style, strict=True)
    )
    body = "".join(
        f'<tr class="part"><th colspan="{len(head)}">{escape(row[0])}</th></tr>'
        if len(row) == 1
        else f"<tr{ours if place == marked else ''}>"
        + "".join(f"<td{s}>{cell}</td>" for cell, s in zip(row, style, strict=True))
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def looker(videos_dir: Path) -> Look:
    """Thumbnails from video files: of a path, or of a name in videos_dir. What cannot be read has none."""

    def look(place: Span) -> bytes | None:
        path = (
            Path(place.video)
            if Path(place.video).is_absolute()
            else videos_dir / Path(place.video).name
        )
        try:
            return _thumbnail(path, place)
        except MgvError as error:
            logger.info("no thumbnail: %s", error)
            return None

    return look


def _thumbnail(path: Path, place: Span) -> bytes | None:
    """The frame in the middle of a place, as a small JPEG."""
    from mgv.library.compute import thumbnail
    from mgv.media.frames import read_frames
    from mgv.media.probe import is_video_name, probe

    if not is_video_name(path):
        return None
    video = probe(path, "")
    end_s = video.duration_s if place.end_s is None else place.end_s
    middle_s = (place.start_s + end_s) / 2
    for batch in read_frames(path, [middle_s], size_px=THUMBNAIL_PX):
        return thumbnail(batch.frames[0], THUMBNAIL_PX * 2)
    return None
