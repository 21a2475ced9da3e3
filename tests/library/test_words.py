"""Words: scripts without spaces, accents, and what of a query a text holds; through the real full-text index too."""

from __future__ import annotations

from pathlib import Path

import pytest

from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.library.search import text_hits
from mgv.library.store import open_for_reading
from mgv.library.words import content_words, coverage, folded, pairs
from mgv.workspace import Workspace
from tests.media.make_video import make_video

SAID = {
    "zh": "采购订单自动审批流程从星期一开始。",
    "ja": "港長は嵐のため北門を閉鎖した。",
    "th": "นายท่าปิดประตูทิศเหนือเพราะพายุ",
    "ru": "Новосибирск, красный проспект, дом сорок.",
    "fr": "Le café est fermé à cause de l'été.",
    "ar": "أغلق مدير الميناء البوابة الشمالية",
}


def test_words_are_told_apart_by_script():
    assert content_words("GPT模型 of 采购订单") == ["gpt", "模型", "采购订单"]
    assert pairs("采购订单") == ["采购", "购订", "订单"]
    assert pairs("订") == ["订"]
    assert pairs("order") == []


def test_latin_letters_lose_their_accents_and_others_keep_theirs():
    assert folded("Café ÉTÉ naïve") == "cafe ete naive"
    assert folded("красный") == "красный"
    assert coverage(["cafe"], "Le Café") == 1


def test_of_a_run_counts_the_share_of_its_pairs():
    # 采购 and 购订 are there, 订单 is not; the word `monday` is
    assert coverage(["采购订单", "monday"], "采购订 Monday") == pytest.approx((2 / 3 + 1) / 2)


@pytest.fixture(scope="module")
def segments(_made_workspace: Path, tmp_path_factory: pytest.TempPathFactory):
    import shutil

    from tests.conftest import RANDOM_PARTS, set_params

    place = tmp_path_factory.mktemp("words")
    shutil.copytree(_made_workspace, place / "workspace", symlinks=True)
    workspace: Workspace = set_params(place / "workspace", materialize=RANDOM_PARTS)
    for number, (language, sentence) in enumerate(SAID.items()):
        video = make_video(place / f"{language}.mp4", num_frames=26 + number)
        video.with_suffix(".vtt").write_text(
            f"WEBVTT\n\n00:00.000 --> 00:01.000\n{sentence}\n", encoding="utf-8"
        )
        ingest(workspace, [video])
    manifest = materialize(workspace).manifest
    tables = open_for_reading(workspace.store_uri, manifest.versions, manifest.tag)
    return tables["segments"], {item.video_id: item.name for item in manifest.items}


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("采购订单", "zh"), ("审批流程", "zh"), ("北門", "ja"), ("嵐のため", "ja"), ("ประตู", "th"),
        ("новосибирск", "ru"), ("cafe ferme", "fr"), ("Café", "fr"), ("الميناء", "ar"),
    ],
)  # fmt: skip
def test_a_word_of_any_script_finds_its_video(segments, query: str, name: str):
    table, names = segments
    hits = text_hits(table, query, 10)
    assert [names[hit.video_id] for hit in hits] == [f"{name}.mp4"]
    assert hits[0].relevance == 1


def test_text_that_would_end_a_filter_is_text(segments):
    table, names = segments
    assert (
        text_hits(table, "采购' OR 1=1 --", 10) == []
        or len(text_hits(table, "采购' OR 1=1 --", 10)) == 1
    )
    assert text_hits(table, "订'; DROP TABLE segments", 10, list(names)[:1]) is not None
