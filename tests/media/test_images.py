"""Images: pixels of files and tar members, whatever a file claims to be."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgv.errors import MediaError
from mgv.media.images import TarFault, TarMember, check_image, read_image, read_media, tar_members


def jpeg(
    colour: tuple[int, int, int] = (250, 10, 10),
    size: tuple[int, int] = (40, 30),
    **options: object,
) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path


def test_pixels_are_rgb_and_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to show
    (tmp_path / "turned.jpg").write_bytes(jpeg(exif=exif))
    pixels = read_image(str(tmp_path / "turned.jpg"))
    assert (pixels.shape, pixels.dtype) == ((40, 30, 3), np.uint8)
    assert np.abs(pixels.astype(int) - (250, 10, 10)).max() < 8


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_any_mode_becomes_three_channels(tmp_path: Path, mode: str):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (5, 4)).save(tmp_path / f"x.{suffix}")
    assert read_image(tmp_path / f"x.{suffix}").shape == (4, 5, 3)


def test_an_image_in_a_shard_is_read_by_its_member_name(tmp_path: Path):
    shard = make_tar(tmp_path / "0.tar", {"a.jpg": jpeg(), "./sub/b.jpg": jpeg((0, 0, 250))})
    assert read_image(f"{shard}/a.jpg")[0, 0, 0] > 200
    assert read_image(f"{shard}/sub/b.jpg")[0, 0, 2] > 200
    with pytest.raises(MediaError, match=r"0\.tar has no such member"):
        read_image(f"{shard}/c.jpg")
    make_tar(
        tmp_path / "0.tar", {"c.jpg": jpeg((0, 250, 0)), "d.jpg": jpeg()}
    )  # changed: it is read anew
    assert read_image(f"{shard}/c.jpg")[0, 0, 1] > 200


def test_a_damaged_or_missing_image_is_named(tmp_path: Path):
    whole = jpeg(size=(200, 200))
    check_image("whole.jpg", whole)
    for name, content in (
        ("cut.jpg", whole[:-300]),
        ("text.jpg", b"not an image"),
        ("empty.jpg", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            check_image(tmp_path / name, read_media(tmp_path / name))
    with pytest.raises(MediaError, match="no such file"):
        read_image(tmp_path / "missing.jpg")


def test_a_picture_that_would_unpack_to_gigabytes_is_refused_unread(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    for side in (9_000, 60_000):  # above our limit, and above Pillow's own
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        content = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b"")
        )
        (tmp_path / "bomb.png").write_bytes(content)
        with pytest.raises(MediaError, match="pixels, expected at most"):
            read_image(tmp_path / "bomb.png")


def test_a_format_that_runs_programs_is_not_opened(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(MediaError, match="no picture of a known kind"):
        read_image(tmp_path / "x.jpg")


def test_a_damaged_header_costs_its_member_and_no_other(tmp_path: Path):
    shard = make_tar(tmp_path / "0.tar", {f"{n}.txt": b"x" * 600 for n in range(4)})
    content = bytearray(shard.read_bytes())
    content[1536:1600] = (
        b"\xff" * 64
    )  # each member takes 512 + 1024 bytes: this is the second's name
    shard.write_bytes(content)
    names = [found.name for found in tar_members(shard)]
    assert names == ["0.txt", "bytes 1536-3072", "2.txt", "3.txt"]
    assert [isinstance(found, TarFault) for found in tar_members(shard)] == [
        False,
        True,
        False,
        False,
    ]


def test_a_shard_cut_short_gives_what_is_whole(tmp_path: Path):
    shard = make_tar(tmp_path / "0.tar", {f"{n}.txt": b"x" * 600 for n in range(4)})
    shard.write_bytes(shard.read_bytes()[: 2 * 1536 + 512 + 100])
    *whole, fault = tar_members(shard)
    assert [found.name for found in whole] == ["0.txt", "1.txt"]
    assert fault == TarFault("2.txt", "cut short: 100 of 600 bytes")


def test_links_and_devices_in_a_shard_are_no_members(tmp_path: Path):
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            shard.addfile(info)
        info = tarfile.TarInfo("a" * 300 + ".jpg")  # a long name takes an extended header
        shard.addfile(info)
    assert list(tar_members(tmp_path / "0.tar")) == [
        TarMember("a" * 300 + ".jpg", 4 * 512 + 3 * 512, 0)
    ]


def test_what_is_no_tar_is_refused(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(MediaError, match=r"x\.tar: no tar file"):
        list(tar_members(tmp_path / "x.tar"))
