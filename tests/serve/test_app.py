"""The server: what it gives is what the command line gives; who may not ask is refused; nothing leaks."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from mgv.ask.as_json import moments_json
from mgv.ask.library import Library
from mgv.library.ingest import ingest
from mgv.library.materialize import materialize
from mgv.serve.app import API, create_app
from mgv.workspace import Workspace, find_workspace
from tests.conftest import RANDOM_PARTS, set_params
from tests.media.make_video import make_video

HOST = "http://127.0.0.1:7860"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def _library(_made_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """talk.mp4, whose words are markup, old.avi in a codec that no browser plays, and a broken file."""
    place = tmp_path_factory.mktemp("serve")
    root = place / "workspace"
    shutil.copytree(_made_workspace, root, symlinks=True)
    workspace = set_params(
        root, materialize=RANDOM_PARTS, ask={"answerer": {"pretrained": "random"}}
    )
    talk = make_video(place / "talk.mp4", num_frames=75, num_audio=1)
    talk.with_suffix(".vtt").write_text(
        f"WEBVTT\n\n00:00.500 --> 00:02.000\nThe parrot says &lt;b&gt;hello&lt;/b&gt; {HOSTILE}.\n"
    )
    ingest(workspace, [talk, make_video(place / "old.avi", codec="mpeg4", num_frames=50)])
    (workspace.videos_dir / "bad.mp4").write_text("not a video")
    materialize(workspace)
    return root


@pytest.fixture
def workspace(_library: Path, tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    shutil.copytree(_library, root, symlinks=True)
    return find_workspace(root)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    with TestClient(create_app(workspace.root), base_url=HOST) as client:
        yield client


def id_of(client: TestClient, name: str) -> str:
    videos = client.get(f"{API}/videos").json()["videos"]
    return next(str(video["video_id"]) for video in videos if video["name"] == name)


def test_a_search_is_that_of_the_python_api(client: TestClient, workspace: Workspace):
    found = client.get(f"{API}/search", params={"q": "parrot", "limit": 2}).json()
    assert found["moments"] == json.loads(
        json.dumps(moments_json(Library.open(workspace.root).search("parrot", limit=2)))
    )
    only = client.get(
        f"{API}/search", params={"q": "parrot", "video": id_of(client, "old.avi")}
    ).json()
    assert {moment["video"] for moment in only["moments"]} <= {"old.avi"}


def test_videos_are_listed_with_those_that_failed(client: TestClient):
    listed = client.get(f"{API}/videos").json()
    assert sorted(video["name"] for video in listed["videos"]) == ["old.avi", "talk.mp4"]
    assert list(listed["failed"]) == ["bad.mp4"]
    assert client.get(f"{API}/health").json()["status"] == "ok"


def test_an_answer_comes_whole_or_in_pieces_and_its_receipt_replays(client: TestClient):
    asked = {"question": "what does the parrot say?"}
    whole = client.post(f"{API}/ask", json=asked).json()
    events = client.post(f"{API}/ask", json=asked | {"stream": True}).text.strip().split("\n\n")
    assert events[-1].startswith("event: answer\ndata: ")
    streamed = json.loads(events[-1].split("data: ", 1)[1])
    assert {**streamed, "receipt": None} == {**whole, "receipt": None}
    receipt = client.get(f"{API}/receipts/{whole['receipt']}").json()
    assert receipt["question"] == asked["question"]
    replayed = client.post(f"{API}/receipts/{whole['receipt']}/replay", content=b"").json()
    assert (replayed["identical"], replayed["differences"]) == (True, [])


def test_media_come_in_ranges_and_pictures_by_time(client: TestClient, workspace: Workspace):
    talk = id_of(client, "talk.mp4")
    content = (workspace.videos_dir / "talk.mp4").read_bytes()
    part = client.get(f"{API}/videos/{talk}/media", headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, content[10:30])
    picture = client.get(f"{API}/videos/{talk}/thumbnail", params={"t": 1.5})
    assert picture.content.startswith(b"\xff\xd8")
    assert client.get(f"{API}/videos/{talk}/thumbnail", params={"t": 1000}).status_code == 404
    words = client.get(f"{API}/videos/{talk}/subtitles.vtt")
    assert "00:00:00.500 --> 00:00:02.000\nThe parrot says &lt;b&gt;hello&lt;/b&gt;" in words.text


def test_a_clip_is_cut_exactly_and_plays_in_browsers(client: TestClient, tmp_path: Path):
    from mgv.media.probe import probe

    clip = client.get(
        f"{API}/videos/{id_of(client, 'old.avi')}/clip.mp4", params={"start": 0.4, "end": 1.2}
    )
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.content)
    video = probe(path, "")
    assert (video.video_codec, round(video.duration_s, 2)) == ("h264", 0.8)
    bad = client.get(
        f"{API}/videos/{id_of(client, 'old.avi')}/clip.mp4", params={"start": 50, "end": 60}
    )
    assert bad.status_code == 422


def test_the_page_shows_results_without_javascript_and_no_markup_of_others(client: TestClient):
    page = client.get("/", params={"q": f"parrot {HOSTILE}"})
    assert "talk.mp4" in page.text
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/static/page.js").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "[::2]", ""]
)
def test_another_name_for_this_server_is_refused(client: TestClient, host: str):
    assert client.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Content-Length": "99999999"}, 413), ({"Origin": HOST}, 200),
    ],
)  # fmt: skip
def test_a_page_from_elsewhere_cannot_write(
    client: TestClient, headers: dict[str, str], status: int
):
    asked = client.post(
        f"{API}/ask",
        content=b'{"question": "a"}',
        headers={"Content-Type": "application/json", **headers},
    )
    assert asked.status_code == status


PATHS = (
    "..",
    "../../etc/passwd",
    "%2e%2e%2fparams.yaml",
    "/etc/passwd",
    "talk.mp4",
    "a" * 64,
    "A" * 64,
    "0" * 63,
    "%00",
    "*",
)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("what", ["media", "thumbnail", "subtitles.vtt", "clip.mp4?start=0&end=1"])
def test_only_ids_name_videos(client: TestClient, name: str, what: str):
    found = client.get(f"{API}/videos/{name}/{what}")
    assert 400 <= found.status_code < 500
    assert "root:" not in found.text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        f"{API}/receipts/..%2f..%2fparams",
    ],
)
def test_nothing_outside_is_served(client: TestClient, path: str):
    found = client.get(path)
    assert found.status_code in (404, 422)
    assert "create_app" not in found.text


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"q": ""},
        {"q": "a" * 5000},
        {"q": "a", "limit": 0},
        {"q": "a", "limit": "x"},
        {"q": "a", "video": "x"},
        {"q": "\0"},
    ],
)
def test_a_bad_query_is_the_askers_fault(client: TestClient, params: dict[str, str]):
    found = client.get(f"{API}/search", params=params)
    assert found.status_code in (400, 422)


def test_an_error_names_no_path_of_this_machine(client: TestClient, workspace: Workspace):
    (workspace.videos_dir / "talk.mp4").write_bytes(b"damaged since")
    found = client.get(f"{API}/videos/{'0' * 64}/media")
    assert str(workspace.root) not in found.text


def test_a_new_library_is_picked_up_while_clients_search(workspace: Workspace, tmp_path: Path):
    with TestClient(
        create_app(workspace.root), base_url=HOST, raise_server_exceptions=False
    ) as client:
        before = client.get(f"{API}/ready").json()["library"]
        codes: list[int] = []
        stop = threading.Event()

        def search() -> None:
            while not stop.is_set():
                codes.append(client.get(f"{API}/search", params={"q": "parrot"}).status_code)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        ingest(workspace, [make_video(tmp_path / "new.mp4", num_frames=25)])
        materialize(workspace)
        after = client.get(f"{API}/ready").json()["library"]
        stop.set()
        for thread in threads:
            thread.join()
        assert before != after
        assert "new.mp4" in client.get("/").text
        assert codes
        assert set(codes) == {200}
