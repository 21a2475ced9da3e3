"""Sources: every format on a tiny file in its true layout, and what becomes of rows that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgv.data import rows
from mgv.data.rows import BadRow, SampleRow
from mgv.data.sources import INSTRUCTIONS, SOURCES, MediaFolder, instruction, source_named
from mgv.errors import ConfigError, DataError
from mgv.records import Sample, Turn
from tests.media.test_images import jpeg, make_tar

NOWHERE = MediaFolder(None)


def read(name: str, annotations: Path, media: Path | None = None) -> list[Sample | str]:
    """The samples, and for bad rows `PLACE: REASON`."""
    found = SOURCES[name].read(annotations, MediaFolder(media), name)
    return [
        row.sample if isinstance(row, SampleRow) else f"{row.place}: {row.reason}" for row in found
    ]


def write_json(path: Path, value: Any, **options: Any) -> Path:
    path.write_text(json.dumps(value, **options))
    return path


def write_lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder of files whose content no reader looks at."""
    folder = tmp_path / "media"
    for name in ("v1.mp4", "v2.mkv", "007.mp4", "sub/3.webm", "1.jpg", "a b.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"-")
    return folder


def test_our_own_rows(tmp_path: Path, media: Path):
    turn = {"question": "q", "answer": "a"}
    path = write_lines(
        tmp_path / "mine.jsonl",
        {"media": "v1.mp4", "turns": [turn], "media_id": "0" * 64},
        {"media": "1.jpg", "turns": [turn], "sample_id": "cat"},
        {"media": "v1.mp4", "turns": [{"question": "q", "answer": ""}]},
    )
    assert read("samples", path, media) == [
        Sample(sample_id="samples/1", media=f"{media}/v1.mp4", media_id="", turns=(Turn(question="q", answer="a"),)),
        Sample(
            sample_id="samples/cat", media=f"{media}/1.jpg", media_id="", is_image=True,
            turns=(Turn(question="q", answer="a"),),
        ),
        "line 3: turn 1: answer is empty, expected text",
    ]  # fmt: skip


def said(*values: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


def test_llava_conversations(tmp_path: Path, media: Path):
    path = write_json(
        tmp_path / "llava_v1_5_mix665k.json",
        [
            {"id": "000", "image": "1.jpg", "conversations": said("<image>\nWhat is it?", "A cat.", "Why?", "It is.")},
            {"id": 7, "video": "v1.mp4", "conversations": said("What is done?\n<video>", "Nothing.")},
            {"id": "text", "model": "", "conversations": said("Hello", "Hi.")},
        ],
        indent=1,
    )  # fmt: skip
    image, video, text = read("llava", path, media)
    assert image == Sample(
        sample_id="llava/1", media=f"{media}/1.jpg", media_id="", is_image=True, is_dialogue=True,
        turns=(Turn(question="What is it?", answer="A cat."), Turn(question="Why?", answer="It is.")),
    )  # fmt: skip
    assert video == Sample(
        sample_id="llava/2", media=f"{media}/v1.mp4", media_id="",
        turns=(Turn(question="What is done?", answer="Nothing."),),
    )  # fmt: skip
    assert text == "row 3 (line 38): text alone, no image or video"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"video": "v1.mp4", "conversations": said("q", "a", "q")}, "the last turn has no answer"),
        (
            {"video": "v1.mp4", "conversations": said("q", "a")[::-1]},
            "turn 1 is from 'gpt', expected 'human'",
        ),
        ({"video": "v1.mp4", "conversations": said("<video>", "a")}, "turn 1: value is empty"),
        ({"video": "v1.mp4", "conversations": said("<video> q", "")}, "turn 2: value is empty"),
        (
            {"video": "v1.mp4", "conversations": said("<video><video> q", "a")},
            "2 marks <image> or <video>",
        ),
        ({"video": "v1.mp4"}, "no 'conversations'"),
        ({"video": "v1.mp4", "conversations": [{"from": [], "value": 1}]}, "turn 1 is from '[]'"),
        (
            {"video": ["v1.mp4", "v2.mp4"], "conversations": said("q", "a")},
            "video names 2 files, expected one",
        ),
        ({"video": "v1.mp4", "image": "1.jpg"}, "'image' and 'video', expected one of them"),
        ("text", "'text', expected an object"),
    ],
)
def test_a_wrong_conversation_is_named(tmp_path: Path, media: Path, row: Any, says: str):
    (found,) = read("llava", write_lines(tmp_path / "train.jsonl", row), media)
    assert isinstance(found, str)
    assert says in found


def test_rows_of_video_chatgpt_about_one_video_become_one_sample_of_turns_that_stand_alone(
    tmp_path: Path, media: Path
):
    path = write_json(
        tmp_path / "VideoInstruct100K.json",
        [
            {"q": "What?", "a": "A dog.", "video_id": "v1"},
            {"q": "Who?", "a": "Nobody.", "video_id": "v2"},
            {"q": "Where?", "a": "", "video_id": "v2"},
            {"q": "Why?", "a": "No reason.", "video_id": "v1"},
            {"q": "When?", "a": "Never.", "video_id": "v9"},
        ],
    )
    assert read("video_chatgpt", path, media) == [
        "row 3 (line 1): a is empty, expected text",
        Sample(
            sample_id="video_chatgpt/v1", media=f"{media}/v1.mp4", media_id="",
            turns=(Turn(question="What?", answer="A dog."), Turn(question="Why?", answer="No reason.")),
        ),
        Sample(
            sample_id="video_chatgpt/v2", media=f"{media}/v2.mkv", media_id="",
            turns=(Turn(question="Who?", answer="Nobody."),),
        ),
        f"row 5 (line 1): no such video: {media}/v9.mp4, nor .mkv, .webm or another video suffix",
    ]  # fmt: skip


def test_cmd_captions(tmp_path: Path, media: Path):
    path = write_json(
        tmp_path / "train.json",
        {"annotations": [{"image_id": "v2", "caption": " He runs.\nShe\twaits. "}]},
    )
    (sample,) = read("cmd", path, media)
    assert isinstance(sample, Sample)
    assert sample.media == f"{media}/v2.mkv"
    assert sample.turns == (
        Turn(question=instruction("cmd/1"), answer="He runs. She waits.", kind="caption"),
    )


CAPTION = "Merida, mexico - may 23, 2017: close-up of a non-stop train: slow motion"


def test_a_webvid_caption_is_the_whole_name(tmp_path: Path, media: Path):
    as_json = write_json(tmp_path / "w.json", [{"videoid": 3, "name": CAPTION, "page_dir": "sub"}])
    as_csv = tmp_path / "results_2M_val.csv"
    as_csv.write_text(
        f'videoid,contentUrl,duration,page_dir,name\n3,https://x/3.mp4,PT00H00M10S,sub,"{CAPTION}"\n4,u,d,sub,x\n'
    )
    (of_json,) = read("webvid", as_json, media)
    of_csv, missing = read("webvid", as_csv, media)
    assert of_csv == of_json
    assert isinstance(of_json, Sample)
    assert (of_json.media, of_json.turns[0].answer) == (f"{media}/sub/3.webm", CAPTION)
    assert str(missing).startswith(f"line 3: no such video: {media}/sub/4.mp4")


def test_cc_sbu_align(tmp_path: Path, media: Path):
    path = write_json(
        tmp_path / "filter_cap.json",
        {
            "annotations": [
                {"image_id": "1", "caption": "A cat."},
                {"image_id": "2", "caption": "A dog."},
            ]
        },
    )
    sample, missing = read("cc_sbu_align", path, media)
    assert isinstance(sample, Sample)
    assert (sample.media, sample.is_image, sample.turns[0].answer) == (
        f"{media}/1.jpg",
        True,
        "A cat.",
    )
    assert missing == f"row 2 (line 1): no such file: {media}/2.jpg"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards as img2dataset writes them, and a third that is not there."""
    folder = tmp_path / "shards"
    folder.mkdir()
    caption = json.dumps(
        {"caption": "A red square.", "url": "https://x", "status": "success"}
    ).encode()
    make_tar(
        folder / "00000.tar",
        {
            "000.jpg": jpeg(),
            "000.json": caption,
            "000.txt": b"other",
            "001.jpg": jpeg(),
            "001.txt": b"A square.",
        },
    )
    make_tar(
        folder / "00001.tar",
        {"100.json": caption, "101.jpg": jpeg(), "102.jpg": jpeg(), "102.json": b"{", "103.png": jpeg(),
         "103.txt": b"\xff", "../104.jpg": jpeg(), "../104.txt": b"x", "105.jpg": jpeg(), "105.txt": b"Last."},
    )  # fmt: skip
    return folder


def test_webdataset_shards(shards: Path):
    first, second, *rest = read("webdataset", shards / "{00000..00002}.tar")
    assert isinstance(first, Sample)
    assert first == Sample(
        sample_id="webdataset/00000/000", media=f"{shards}/00000.tar/000.jpg", media_id="", is_image=True,
        turns=(Turn(question=instruction("webdataset/00000/000"), answer="A red square.", kind="caption"),),
    )  # fmt: skip
    assert isinstance(second, Sample)
    assert second.turns[0].answer == "A square."
    *bad, last, missing = rest
    assert bad == [
        "100: no image among .json, expected .jpg, .png or .webp",
        "101: no caption among .jpg, expected .json or .txt",
        "102: not JSON: Expecting property name enclosed in double quotes (at character 2)",
        "103: the caption is not UTF-8 (byte 0)",
        "../104: '../104.jpg' leads out of the shard",
    ]
    assert isinstance(last, Sample)
    assert last.sample_id == "webdataset/00001/105"
    assert str(missing).startswith(f"shard: {shards}/00002.tar: no such file")


def test_a_folder_of_shards_or_one_shard(shards: Path, tmp_path: Path):
    assert [len(read("webdataset", path)) for path in (shards, shards / "00000.tar")] == [8, 2]
    with pytest.raises(DataError, match=r"no \.tar files in it"):
        read("webdataset", tmp_path)
    with pytest.raises(DataError, match="beyond a million"):
        read("webdataset", shards / "{0..99999999}.tar")


def test_a_corrupt_member_is_named_and_the_rest_is_read(shards: Path):
    shard = shards / "00000.tar"
    content = bytearray(shard.read_bytes())
    at = content.index(b"001.jpg")
    content[at : at + 8] = b"\xff" * 8
    shard.write_bytes(content)
    fault, first, alone = read("webdataset", shard)
    assert isinstance(first, Sample)
    assert "damaged: no member can be read here" in str(fault)
    assert alone == "001: no image among .txt, expected .jpg, .png or .webp"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "/etc/passwd",
        "a/../../x.mp4",
        "..\\x.mp4",
        "C:\\x.mp4",
        "\\\\host\\x",
        "a\0b",
        "x/..",
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_a_name_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, media: Path, name: str, folder: bool
):
    (tmp_path / "secret.mp4").write_bytes(b"-")
    given = media if folder else None
    turn = {"question": "q", "answer": "a"}
    named = dict.fromkeys(("video", "video_id", "image_id", "page_dir"), name)
    texts = {
        "q": "q",
        "a": "a",
        "caption": "c",
        "name": "n",
        "videoid": "v1",
        "conversations": said("q", "a"),
    }
    path = write_lines(tmp_path / "x.jsonl", named | texts)
    own = write_lines(tmp_path / "own.jsonl", {"media": name, "turns": [turn]})
    for source in ("llava", "video_chatgpt", "cmd", "cc_sbu_align", "webvid", "samples"):
        found = read(source, own if source == "samples" else path, given)
        if (source, name) == ("cc_sbu_align", "x/.."):
            continue  # the file `...jpg` in the folder x
        assert len(found) == 1
        assert isinstance(found[0], str), (source, found)
        assert "leads out of the media folder" in found[0]
    empty = [
        write_lines(tmp_path / f"{n}.jsonl", {"media": n, "turns": [turn]})
        for n in (".", "..", " ")
    ]
    assert not any(
        isinstance(row, Sample) for path in empty for row in read("samples", path, given)
    )


def test_a_name_that_no_file_system_takes_is_a_missing_file(tmp_path: Path, media: Path):
    turn = {"question": "q", "answer": "a"}
    path = write_lines(
        tmp_path / "x.jsonl",
        {"media": "x" * 5000, "turns": [turn]},
        {"media": "\u202e\x1b[31m.mp4", "turns": [turn]},
        {"media": "x" * 300 + ".tar/a.jpg", "turns": [turn]},
    )
    assert [str(found).split(": ")[1] for found in read("samples", path, media)] == [
        "no such file"
    ] * 3


def test_rows_that_are_no_json_are_named_and_skipped(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    good = json.dumps({"image_id": "é", "caption": "c"}, ensure_ascii=False).encode()
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\n\n{\r\n\xff\n" + b"[" * 100_000 + b"\n" + good)
    found = read("cmd", path)
    assert [isinstance(row, Sample) for row in found] == [True, False, False, False, True]
    assert [str(row)[:15] for row in found[1:4]] == [
        "line 3: not JSO",
        "line 4: not UTF",
        "line 5: not JSO",
    ]


def test_a_line_without_end_is_skipped_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 64)
    good = '{"image_id": "v", "caption": "c"}'
    path = tmp_path / "x.jsonl"
    path.write_text(f'{good}\n{{"image_id": "{"x" * 1000}"}}\n{good}\n')
    assert [isinstance(row, Sample) for row in read("cmd", path)] == [True, False, True]


def test_a_list_is_read_item_by_item_with_its_lines_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    items = [
        {"image_id": f"v{n}", "caption": "é\n" * n, "deep": {"x": [n, "]", '"}']}}
        for n in range(1, 40)
    ]
    path = write_json(tmp_path / "x.json", {"annotations": items}, indent=2, ensure_ascii=False)
    lines = path.read_text().splitlines()
    begins = [number for number, line in enumerate(lines, 1) if line == "    {"]
    expected = [f"row {row} (line {line})" for row, line in enumerate(begins, 1)]
    for block in (1, 7, 64, 2**20):
        monkeypatch.setattr(rows, "_BLOCK", max(block, 32))
        found = list(rows.read_rows(path))
        assert [value for _, value in found] == items
        assert [place for place, _ in found] == expected


def test_a_broken_list_stops_with_its_line(tmp_path: Path):
    (tmp_path / "x.json").write_text(
        '[\n{"image_id": "v1", "caption": "c"},\n{"image_id": "v1", "capt'
    )
    with pytest.raises(DataError, match=r"x\.json, line 3: the list is broken from here on"):
        read("cmd", tmp_path / "x.json")
    with pytest.raises(DataError, match=r"y\.json: cannot be read"):
        read("cmd", tmp_path / "y.json")


def test_every_caption_draws_the_same_instruction_each_time_and_all_are_drawn():
    drawn = [instruction(f"cmd/{n}") for n in range(1000)]
    assert drawn == [instruction(f"cmd/{n}") for n in range(1000)]
    assert set(drawn) == set(INSTRUCTIONS)


def test_an_unknown_source_is_named_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"no source 'lava'; there are scenes, samples, llava"):
        source_named("lava")


def test_a_bad_row_says_its_file_and_place():
    assert str(BadRow(Path("a.json"), "line 3", "no 'q'")) == "a.json, line 3: no 'q'"


def test_rows_of_images_videos_and_messages_are_understood_or_named(tmp_path: Path, media: Path):
    said = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "A cat."}]
    upper_case = [{"from": "Human", "value": "<video>Who?"}, {"from": "GPT", "value": "Me."}]
    rows = [
        {"videos": ["v1.mp4"], "messages": said},
        {"videos": ["v1.mp4", "v2.mkv"], "messages": said},
        {"clip": "v1.mp4", "messages": said},
        {"video": "v1.mp4", "conversations": upper_case},
    ]
    path = write_json(tmp_path / "rows.json", rows)
    first, two, unknown, upper = read("llava", path, media)
    assert isinstance(first, Sample)
    assert (first.media, first.turns) == (
        f"{media}/v1.mp4",
        (Turn(question="What?", answer="A cat."),),
    )
    assert two == "row 2 (line 1): videos names 2 files, expected one"
    assert str(unknown).startswith("row 3 (line 1): <image> or <video> in the text, but no 'image'")
    assert isinstance(upper, Sample)


def test_an_empty_media_file_is_named(tmp_path: Path, media: Path):
    (media / "zero.mp4").touch()
    talk = [{"from": "human", "value": "<video>What?"}, {"from": "gpt", "value": "A cat."}]
    path = write_json(tmp_path / "rows.json", [{"video": "zero.mp4", "conversations": talk}])
    assert read("llava", path, media) == [f"row 1 (line 1): an empty file: {media}/zero.mp4"]
