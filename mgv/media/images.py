"""Images: pixels and bytes of picture files, which may lie in tar shards (`SHARD.tar/MEMBER`)."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mgv.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Names of images; a .gif may be a video (TGIF), so a row has to say it."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Pillow tries no others: some of its readers run other programs."""
MAX_PIXELS = 64 * 10**6
"""A larger picture is refused ahead of decoding: a small file may unpack to any size."""
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class TarMember:
    """A file in a tar shard: its name there and where its bytes are."""

    name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TarFault:
    """A stretch of a tar shard that cannot be read."""

    name: str
    """The member at fault, or where the fault lies."""
    reason: str


def read_image(media: str | Path) -> NDArray[np.uint8]:
    """The pixels [H, W, 3] of an image file or a tar member, in RGB, upright by its EXIF orientation.

    Raises MediaError for what is no JPEG, PNG, WebP, GIF or BMP, is damaged, or has more than MAX_PIXELS.
    """
    import numpy as np
    from PIL import ImageOps

    with _open(media) as image:
        upright = _decoded(media, lambda: ImageOps.exif_transpose(image).convert("RGB"))
        return np.array(upright, dtype=np.uint8)


def check_image(media: str | Path, content: bytes) -> None:
    """Decode an image to its end, JPEG at an eighth of its size. Raises MediaError when it is damaged."""
    with _open(media, content) as image:
        image.draft("RGB", (1, 1))
        _decoded(media, image.load)


def read_media(media: str | Path) -> bytes:
    """The bytes of an image file or a tar member. Raises MediaError."""
    from mgv.media.container import check_file, one_line

    within = split_member(media)
    path, offset, size_bytes = Path(media), 0, 0
    if within:
        path, name = within
        facts = path.stat()
        members = _tar_index(path, facts.st_size, facts.st_mtime_ns)
        if name not in members:
            raise MediaError(f"{media}: {path.name} has no such member")
        offset, size_bytes = members[name]
    else:
        size_bytes = check_file(path)
    if size_bytes > MAX_BYTES:
        raise MediaError(f"{media}: {size_bytes} bytes, expected an image of at most {MAX_BYTES}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)
    except OSError as error:
        raise MediaError(f"{media}: cannot be read: {one_line(error)}") from error


def split_member(media: str | Path) -> tuple[Path, str] | None:
    """The shard and the member that `SHARD.tar/MEMBER` names; None for an ordinary path."""
    path = Path(media)
    for shard in reversed(path.parents):
        if shard.suffix.lower() == ".tar" and len(shard.name) < 256 and shard.is_file():
            return shard, path.relative_to(shard).as_posix()
    return None


def tar_members(path: Path) -> Iterator[TarMember | TarFault]:
    """The files of a tar shard in order, and what of it cannot be read; after a fault it goes on where it can.

    Only headers are read. Raises MediaError when the shard cannot be opened or is no tar file.
    """
    from mgv.media.container import check_file

    size_bytes = check_file(path)
    end = 0  # of the last member
    try:
        with (
            path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as shard,
        ):
            for member in shard:
                if _has_content(path, end, member.offset):
                    yield TarFault(
                        f"bytes {end}-{member.offset}", "damaged: no member can be read here"
                    )
                data_end = member.offset_data + (member.size if member.isreg() else 0)
                end = -(-data_end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if data_end > size_bytes:
                    yield TarFault(
                        member.name,
                        f"cut short: {size_bytes - member.offset_data} of {member.size} bytes",
                    )
                    return
                if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
                    yield TarMember(
                        str(PurePosixPath(member.name)), member.offset_data, member.size
                    )
            if end == 0 and _has_content(path, 0, size_bytes):
                raise tarfile.ReadError("no member in it")
            if _has_content(path, end, size_bytes):
                yield TarFault(f"bytes {end}-{size_bytes}", "damaged: no member can be read here")
    except tarfile.TarError as error:
        if end == 0:
            raise MediaError(
                f"{path}: no tar file ({error}), expected an uncompressed one"
            ) from error
        yield TarFault(f"bytes {end}-{size_bytes}", f"damaged: {error}")


@lru_cache(maxsize=64)
def _tar_index(path: Path, size_bytes: int, modified_ns: int) -> dict[str, tuple[int, int]]:
    """Where each member of a shard lies, by name; size and time are there to read a changed shard anew."""
    return {
        member.name: (member.offset, member.size_bytes)
        for member in tar_members(path)
        if isinstance(member, TarMember)
    }


def _has_content(path: Path, start: int, stop: int) -> bool:
    """Whether a gap between members holds anything but the zeros that end an archive."""
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            block = file.read(min(stop - start, 2**20))
            if not block or block.strip(b"\0"):
                return bool(block)
            start += len(block)
    return False


def _open(media: str | Path, content: bytes | None = None) -> Image:
    from PIL import Image

    image: Image.Image = _decoded(
        media, lambda: Image.open(io.BytesIO(content or read_media(media)), formats=_FORMATS)
    )
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(
            f"{media}: {image.width} x {image.height} pixels, expected at most {MAX_PIXELS:,}"
        )
    return image


def _decoded(media: str | Path, decode: Any) -> Any:
    """What decode gives; what Pillow raises on damaged or hostile bytes becomes MediaError."""
    from PIL import Image, UnidentifiedImageError

    try:
        return decode()
    except MediaError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError(f"{media}: too many pixels, expected at most {MAX_PIXELS:,}") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        KeyError,
        IndexError,
        TypeError,
        EOFError,
        MemoryError,
    ) as error:
        reason = (
            "no picture of a known kind"
            if isinstance(error, UnidentifiedImageError)
            else str(error)
        )
        raise MediaError(
            f"{media}: cannot be read as an image ({reason}); expected JPEG, PNG or WebP"
        ) from error
