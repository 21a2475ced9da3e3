"""A whole evaluation: from params to results, again without work, compared, gated, and shown as a page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mgv.config import EvaluateParams
from mgv.errors import ConfigError, GateError, UsageError, WorkspaceError
from mgv.evaluate.answering import Given
from mgv.evaluate.compare import compare
from mgv.evaluate.gate import check_gate, write_baseline
from mgv.evaluate.ledger import Shard
from mgv.evaluate.report import render, worst
from mgv.evaluate.results import Run, plots, read_run, write_run
from mgv.evaluate.run import ask, evaluate, open_questions, sampled, summed_up, write_results
from mgv.evaluate.scores import Scored, score_item
from mgv.evaluate.sets.published import differences
from mgv.evaluate.sets.questions import EvaluationItem
from mgv.evaluate.spans import Span
from mgv.registry.evaluation import Facts, parse_facts
from mgv.workspace import Workspace

ROOT = Path(__file__).parents[2]
PARAMS = EvaluateParams(questions="q", queries=None, num_bootstrap=50)


def facts(**changed: Any) -> Facts:
    told = {
        "mgv": "0", "made": "today", "seed": 0, "limit": None, "num_bootstrap": 50, "time_s": 1.0,
        "model": {
            "system": "model", "model": "abc", "use_subtitles": True, "max_new_tokens": 64, "repetition_penalty": 1.0,
        },
        "judge": {"judge": "rule", "version": 1},
        "questions": replace_set(),
    }  # fmt: skip
    return parse_facts(told | changed)


def replace_set(**changed: Any) -> dict[str, Any]:
    return {"name": "q", "format": "msvd", "digest": "d", "count": 4, "missing": {}} | changed


def row(key: str, accuracy: float, group: str = "v", **changed: Any) -> Scored:
    values: dict[str, Any] = {
        "task": "question", "key": key, "group": group, "kind": "", "text": f"question {key}", "reference": "yes",
        "answer": "yes" if accuracy else "no", "scores": {"accuracy": accuracy}, "confidence": 0.9,
    }  # fmt: skip
    return Scored(**values | changed)


def run_of(accuracies: list[float], **changed: Any) -> Run:
    rows = [row(f"i{n}", accuracy, group=f"v{n}") for n, accuracy in enumerate(accuracies)]
    return summed_up(facts(**changed), rows, PARAMS)


def verdict(**values: Any) -> dict[str, Any]:
    return {"error": "", "correct": None, "score": None} | values


ITEM = EvaluationItem(item_id="1", videos=("a.mp4",), question="q", answer="a red car")


def test_an_open_answer_has_words_and_verdict():
    scored = score_item(
        ITEM, Given(item_id="1", answer="red car"), {"match": verdict(correct=True, score=4)}
    )
    assert scored.scores == {"exact_match": 1.0, "token_f1": 1.0, "accuracy": 1.0, "score": 4.0}


def test_an_answer_that_failed_is_wrong_and_a_verdict_that_failed_is_left_out():
    failed = score_item(ITEM, Given(item_id="1", answer=None, error="broken"), {})
    assert (failed.scores["accuracy"], failed.scores["score"], failed.error) == (0, 0, "broken")
    unjudged = score_item(ITEM, Given(item_id="1", answer="x"), {"match": verdict(error="prose")})
    assert "accuracy" not in unjudged.scores
    assert unjudged.judge_error == "prose"


def test_a_choice_a_citation_and_an_unanswerable_question():
    choice = replace(ITEM, answer="red", choices=("blue", "red"))
    assert score_item(choice, Given(item_id="1", answer="B", choice=1), {}).scores == {
        "accuracy": 1.0
    }
    assert score_item(choice, Given(item_id="1", answer="?", choice=None), {}).scores == {
        "accuracy": 0.0
    }
    nothing = replace(ITEM, answer=None)
    assert score_item(nothing, Given(item_id="1", answer=None), {}).scores["abstained"] == 1
    assert score_item(nothing, Given(item_id="1", answer="a car"), {}).scores["accuracy"] == 0
    assert (
        score_item(nothing, Given(item_id="1", answer=None, error="x"), {}).scores["accuracy"] == 0
    )
    cited = (
        Span(video="talk.mp4", start_s=0, end_s=4),
        Span(video="talk.mp4", start_s=50, end_s=60),
    )
    with_gold = replace(ITEM, moments=(Span(video="talk", start_s=1, end_s=3),))
    scores = score_item(
        with_gold,
        Given(item_id="1", answer="x", citations=cited),
        {"match": verdict(correct=False, score=0)},
    ).scores
    assert (scores["citation_precision"], scores["citation_recall"]) == (0.5, 1.0)
    silent = score_item(with_gold, Given(item_id="1", answer=None), {}, "ask").scores
    assert (silent["citation_recall"], "citation_precision" in silent) == (0, False)
    assert (
        "citation_recall" not in score_item(with_gold, Given(item_id="1", answer=None), {}).scores
    )  # of a model


def test_aspects_are_means_of_scores_and_failed_verdicts_are_counted():
    item = replace(ITEM, protocols=("correctness", "detail"))
    rows = [
        score_item(replace(item, item_id=name), Given(item_id=name, answer="x"), verdicts)
        for name, verdicts in (
            ("1", {"correctness": verdict(score=4), "detail": verdict(score=2)}),
            ("2", {"correctness": verdict(score=1), "detail": verdict(error="prose")}),
        )
    ]
    metrics = summed_up(facts(), rows, PARAMS).metrics
    assert (metrics["qa.correctness"], metrics["qa.detail"], metrics["qa.judge_failed"]) == (
        2.5,
        2.0,
        1.0,
    )


def test_a_run_reads_back_as_it_was_written(tmp_path: Path):
    run = run_of([1, 0, 1, 1])
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run
    assert json.loads((tmp_path / "metrics.json").read_text())["qa.accuracy"] == 0.75
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "calibration.csv", "coverage.csv", "recall.csv", "scores.csv", "transcripts.csv",
    ]  # fmt: skip
    assert plots(run)["recall"] == "k,recall,setup\n"
    with pytest.raises(WorkspaceError, match=r"no evaluation in it \(run.json is missing\)"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "[1]", "{oops"])
def test_what_is_no_run_is_told(tmp_path: Path, text: str):
    for name in ("run.json", "metrics.json", "items.jsonl"):
        (tmp_path / name).write_text(text)
    with pytest.raises(WorkspaceError, match="not the results of an evaluation"):
        read_run(tmp_path)


def test_two_runs_are_compared_item_by_item():
    a, b = run_of([1, 0, 1, 0]), run_of([1, 1, 1, 1])
    found = compare(a, b, num_bootstrap=200)
    (accuracy,) = found.differences
    assert (accuracy.metric, accuracy.a, accuracy.b, accuracy.difference, accuracy.count) == (
        "qa.accuracy",
        0.5,
        1.0,
        0.5,
        4,
    )
    assert accuracy.low >= 0
    assert [(flip.key, flip.to, flip.a, flip.b) for flip in found.flips] == [
        ("i1", "right", "no", "yes"), ("i3", "right", "no", "yes"),
    ]  # fmt: skip
    assert found.warnings == ()
    same = compare(a, a, num_bootstrap=50)
    assert (same.differences[0].low, same.differences[0].high, same.differences[0].is_clear) == (
        0,
        0,
        False,
    )


def test_a_difference_over_a_few_items_may_always_be_chance():
    assert not compare(run_of([0] * 9), run_of([1] * 9), num_bootstrap=50).differences[0].is_clear
    assert compare(run_of([0] * 10), run_of([1] * 10), num_bootstrap=50).differences[0].is_clear


def test_a_comparison_says_what_is_not_comparable():
    a = run_of([1, 0, 1])
    other = {"judge": "openai", "model": "big", "version": 1}
    b = run_of([1, 1, 1, 1], judge=other, questions=replace_set(digest="e"))
    found = compare(a, b, num_bootstrap=50)
    assert (found.only_a, found.only_b) == (0, 1)
    assert any(
        "judged by different judges (rule 1; openai big 1): accuracy" in warning
        for warning in found.warnings
    )
    assert any("not the same set" in warning for warning in found.warnings)
    with pytest.raises(UsageError, match="share no item"):
        compare(a, summed_up(facts(), [row("other", 1)], PARAMS))


def test_the_gate_lets_through_what_is_no_worse_than_allowed(tmp_path: Path):
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, run_of([1, 1, 1, 0]))
    (check,) = check_gate(run_of([1, 1, 1, 0]), baseline, {"qa.accuracy": 0.0})
    assert check.passed
    assert check_gate(run_of([1, 1, 0, 0]), baseline, {"qa.accuracy": 0.25})
    with pytest.raises(
        GateError, match=r"qa.accuracy is 0.5000, was 0.7500, may differ by 0.2"
    ) as caught:
        check_gate(run_of([1, 1, 0, 0]), baseline, {"qa.accuracy": 0.2})
    assert caught.value.exit_code == 10


def test_the_gate_knows_which_way_is_better(tmp_path: Path):
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, run_of([1, 1, 1, 0]))
    worse = summed_up(facts(), [row(f"i{n}", 1, error="x" if n else "") for n in range(4)], PARAMS)
    with pytest.raises(GateError, match=r"qa.failed is 3.0000, was 0.0000"):
        check_gate(worse, baseline, {"qa.failed": 0})


def test_the_gate_compares_only_the_same_set_and_judge(tmp_path: Path):
    baseline = tmp_path / "baseline.json"
    write_baseline(baseline, run_of([1, 1]))
    with pytest.raises(GateError, match=r"questions are not those of baseline.json"):
        check_gate(run_of([1, 1], questions=replace_set(digest="e")), baseline, {"qa.accuracy": 0})
    with pytest.raises(GateError, match="judge are not those"):
        check_gate(
            run_of([1, 1], judge={"judge": "hf", "version": 1}), baseline, {"qa.accuracy": 0}
        )
    with pytest.raises(ConfigError, match=r"'qa.magic' is no metric of baseline.json"):
        check_gate(run_of([1, 1]), baseline, {"qa.magic": 0})
    with pytest.raises(ConfigError, match="names no metric"):
        check_gate(run_of([1, 1]), baseline, {})
    broken = (
        '{"asked": 1, "metrics": {}}',
        '{"asked": {}, "metrics": [1]}',
        '{"asked": {}, "metrics": {"a": "x"}}',
    )
    for text in ("", *broken):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(ConfigError, match="mgv evaluate --freeze"):
            check_gate(run_of([1, 1]), tmp_path / "broken.json", {"qa.accuracy": 0})


class Tags(HTMLParser):
    """Notes every tag and attribute of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onmouseover='alert(3)"


def test_hostile_text_does_not_become_html():
    hostile = row(
        HOSTILE, 0, text=HOSTILE, answer=HOSTILE, reference=HOSTILE, error=HOSTILE, judge_error=HOSTILE, kind=HOSTILE,
        found=(Span(video=HOSTILE, start_s=0, end_s=1),), gold=(Span(video=HOSTILE, start_s=0, end_s=1),),
    )  # fmt: skip
    query = replace(hostile, task="query", scores={"recall_at_1": 0.0})
    told = facts(
        questions={"name": HOSTILE, "format": HOSTILE, "digest": HOSTILE, "count": 1, "missing": {HOSTILE: 1}},
        queries={"name": HOSTILE, "format": HOSTILE, "digest": HOSTILE, "count": 1, "missing": {HOSTILE: 1}},
        judge={"judge": HOSTILE, "model": HOSTILE, "version": HOSTILE}, library=HOSTILE,
    )  # fmt: skip
    page = Tags(render(summed_up(told, [hostile, query, row("other", 1, kind="b")], PARAMS)))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not any(name.startswith("on") for name in page.attributes)
    assert HOSTILE in page.text


def test_text_that_would_turn_what_stands_beside_it_is_shown_as_such():
    page = render(summed_up(facts(), [row("a\u202eb\x1b[31m\x00", 0)], PARAMS))
    assert "<code>a\ufffdb\ufffd[31m\ufffd</code>" in page


def test_what_differs_from_the_published_figures_depends_on_the_set():
    asked = {"name": "f", "format": "video_mme", "digest": "d", "count": 1, "missing": {"v": 1}}
    said = differences(facts(questions=asked), "questions")
    assert said[0] == "1 videos of the set are missing here"
    assert said[1].startswith(
        "a choice is read here from the answer's letter"
    )  # and nobody judges it
    assert (
        "moment" in differences(facts(queries={**asked, "format": "qvhighlights"}), "queries")[-1]
    )
    assert (
        "one embedding a video"
        in differences(facts(queries={**asked, "format": "msrvtt"}), "queries")[-1]
    )


def test_the_page_needs_nothing_from_elsewhere_and_shows_the_published_figures():
    page = render(run_of([1, 0, 1, 0]), look=lambda place: b"jpeg")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page
    assert "MiniGPT4-Video (Mistral 7B)" in page
    assert "73.9 %" in page
    assert "open answers are judged here by rule, version 1" in page
    assert 'src="data:image/jpeg;base64,anBlZw=="' in page or "data:image" not in page


def heard(video: str, errors: float, words: float) -> Scored:
    return Scored(
        task="transcript", key=video, group=video, kind="", text=video, reference="five hundred kilograms",
        answer="500 kilograms", scores={"word_error_rate": errors / words}, weight=words,
    )  # fmt: skip


HEARD = {
    "name": "refs", "format": "subtitles", "digest": "d", "count": 2, "missing": {"lost.vtt": 1},
    "unscored": {"talk.mp4": "its words come from subtitles beside it"}, "transcriber": "whisper tiny",
    "normalised": "lower case",
}  # fmt: skip


def test_a_word_error_rate_is_over_all_words_and_videos_are_drawn_whole(tmp_path: Path):
    told = facts(transcripts=HEARD, questions=None)
    run = summed_up(told, [heard("a.mp4", 10, 100), heard("b.mp4", 10, 20)], PARAMS)
    assert run.metrics["transcripts.word_error_rate"] == 0.166667
    assert (run.figures["transcripts.word_error_rate"].low, run.figures["transcripts.word_error_rate"].high) == (
        0.1, 0.5,
    )  # fmt: skip
    counted = {
        name: run.metrics[f"transcripts.{name}"]
        for name in ("count", "words", "unscored", "missing_videos")
    }
    assert counted == {"count": 2, "words": 120, "unscored": 1, "missing_videos": 1}
    assert plots(run)["transcripts"].splitlines()[1:] == [
        "a.mp4,0.100000,100",
        "b.mp4,0.500000,20",
    ]
    page = Tags(render(run)).text
    assert "five hundred → 500" in page
    assert "talk.mp4: its words come from subtitles beside it" in page
    assert "lost.vtt" in page
    better = summed_up(told, [heard("a.mp4", 10, 100), heard("b.mp4", 4, 20)], PARAMS)
    (difference,) = compare(run, better, num_bootstrap=50).differences
    assert (difference.metric, difference.difference) == (
        "transcripts.word_error_rate",
        pytest.approx(-6 / 120),
    )
    write_baseline(tmp_path / "baseline.json", better)
    with pytest.raises(GateError, match=r"transcripts.word_error_rate is 0.1667, was 0.1167"):
        check_gate(run, tmp_path / "baseline.json", {"transcripts.word_error_rate": 0.01})


def test_the_model_and_the_library_are_two_parts_of_one_run():
    told = facts(library_questions=replace_set(missing={"gone": 2}), library="l")
    rows = [row("i1", 1), row("i1", 0, task="ask"), row("i2", 1, task="ask")]
    run = summed_up(told, rows, PARAMS)
    assert (run.metrics["qa.accuracy"], run.metrics["ask.accuracy"]) == (1, 0.5)
    assert (
        run.metrics["ask.count"],
        run.metrics["ask.missing_videos"],
        run.metrics["qa.count"],
    ) == (2, 1, 1)
    flips = compare(
        run, replace(run, rows=(row("i1", 1), row("i1", 1, task="ask"))), num_bootstrap=50
    ).flips
    assert [(flip.task, flip.to) for flip in flips] == [("ask", "right")]
    assert [each.task for each in worst(run)] == ["ask"]


def test_the_worst_are_those_that_failed_then_those_wrong_and_sure():
    rows = [
        row("right", 1), row("unsure", 0, confidence=0.1), row("sure", 0, confidence=0.9), row("failed", 0, error="x"),
    ]  # fmt: skip
    assert [each.key for each in worst(summed_up(facts(), rows, PARAMS))] == [
        "failed",
        "sure",
        "unsure",
    ]


def test_a_limit_draws_the_same_items_every_time():
    ids = [f"{n:03}" for n in range(100)]
    drawn = sampled(ids, EvaluateParams(limit=10), str)
    assert drawn == sampled(ids[::-1], EvaluateParams(limit=10), str)
    assert len(drawn) == 10
    assert drawn != sampled(ids, EvaluateParams(limit=10, seed=1), str)
    assert sampled(ids, EvaluateParams(), str) == ids


@pytest.fixture
def asked(
    workspace: Workspace, model_folder: Path, clips: Path, questions_file: Path
) -> EvaluateParams:
    return EvaluateParams(
        model=str(model_folder), questions=str(questions_file), questions_format="mgv", videos=str(clips),
        max_new_tokens=4, num_bootstrap=50,
    )  # fmt: skip


def test_a_second_run_answers_nothing_anew_and_shards_join(
    workspace: Workspace, asked: EvaluateParams, tmp_path: Path
):
    whole = evaluate(workspace, asked, tmp_path / "whole")
    assert whole.metrics["qa.count"] == 6
    assert whole.metrics["qa.failed"] == 0
    answers = next((tmp_path / "whole" / "answers").glob("*/answers.jsonl"))
    before = answers.read_bytes()
    assert evaluate(workspace, asked, tmp_path / "whole").metrics == whole.metrics
    assert answers.read_bytes() == before
    for number in (1, 2):
        ask(
            open_questions(workspace, asked, tmp_path / "shards", "questions"),
            shard=Shard(number=number, count=2),
        )
    joined = evaluate(workspace, asked, tmp_path / "shards")
    assert joined.metrics == whole.metrics
    assert joined.rows == whole.rows
    write_results(tmp_path / "whole", whole, workspace.videos_dir)
    assert (tmp_path / "whole" / "report.html").read_text().count(
        "data:image/jpeg"
    ) >= 1  # of the worst items


def test_another_model_or_other_params_are_another_run(
    workspace: Workspace, asked: EvaluateParams, tmp_path: Path
):
    evaluate(workspace, asked, tmp_path)
    evaluate(workspace, replace(asked, use_subtitles=False), tmp_path)
    assert len(list((tmp_path / "answers").iterdir())) == 2


def test_what_is_missing_is_told(workspace: Workspace, asked: EvaluateParams, tmp_path: Path):
    with pytest.raises(
        ConfigError, match="name what to ask: questions, library_questions, queries, transcripts"
    ):
        evaluate(workspace, replace(asked, questions=None), tmp_path)
    with pytest.raises(WorkspaceError, match=r"test.jsonl: not there; run `dvc repro prepare`"):
        evaluate(workspace, replace(asked, questions="data/prepare/test.jsonl"), tmp_path)
    with pytest.raises(WorkspaceError, match="nothing materialised yet"):
        evaluate(
            workspace, replace(asked, questions=None, library_questions=asked.questions), tmp_path
        )


def mgv(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mgv.cli", *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_commands_evaluate_freeze_gate_and_compare(workspace: Workspace, asked: EvaluateParams):
    import yaml

    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    params["evaluate"] |= {
        "model": asked.model, "questions": asked.questions, "questions_format": "mgv", "videos": asked.videos,
        "max_new_tokens": 4, "num_bootstrap": 50, "baseline": "baseline.json", "gate": {"qa.accuracy": 0.0},
    }  # fmt: skip
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params))
    done = mgv("evaluate", "--freeze", "baseline.json", "--json", cwd=workspace.root)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["metrics"]["qa.count"] == 6
    frozen = json.loads((workspace.root / "baseline.json").read_text())
    frozen["metrics"]["qa.accuracy"] += 0.5
    (workspace.root / "baseline.json").write_text(json.dumps(frozen))
    gated = mgv("evaluate", "--gate", "--freeze", "baseline.json", "--json", cwd=workspace.root)
    assert gated.returncode == 10
    assert "qa.accuracy is" in gated.stderr
    assert json.loads(gated.stdout)["metrics"] == shown["metrics"]
    kept = json.loads((workspace.root / "baseline.json").read_text())
    assert kept == frozen  # a run does not pass by freezing itself
    compared = mgv("compare", "results", "results", "--json", cwd=workspace.root)
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["flips"] == []
