"""Zip archives from people one need not trust: which members may be read at all."""

from __future__ import annotations

import re
import stat
import zipfile

_MAX_MEMBERS = 20_000
# Deflate reaches 1032; numbers and text that anyone would send stay far below this.
_MAX_RATIO = 200
_RATIO_FROM_BYTES = 1 << 20


class ZipRefused(Exception):
    """Why an archive is refused, for the caller to put into words."""


def checked_members(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """The regular files in an archive by name, if none of its members is suspicious.

    Names are relative, with ``/``; reading a member is bounded by its declared size, which
    `zipfile` enforces, and the sum of those by `max_bytes`.

    Raises:
        ZipRefused: Names that leave the folder, links, duplicates (also those that differ by case
            alone), encryption, too many or too large members, compression like a bomb's.
    """
    infos = archive.infolist()
    if len(infos) > _MAX_MEMBERS:
        raise ZipRefused(f"it has {len(infos)} members")
    if sum(info.file_size for info in infos) > max_bytes:
        raise ZipRefused(f"it unpacks to more than {max_bytes} bytes")
    members: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        # The name as written; ZipInfo.filename is cut at a NUL and has other separators replaced.
        name = info.orig_filename
        parts = name.rstrip("/").split("/")
        if re.search(r'[\x00-\x1f\\:*?"<>|]', name) or any(p in ("", ".", "..") for p in parts):
            raise ZipRefused(f"its member {name[:100]!r} has a name that is not allowed")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ZipRefused(f"its member {name[:100]!r} is a link or a device")
        if info.flag_bits & 0x1:
            raise ZipRefused("it is encrypted")
        if name.casefold() in seen:
            raise ZipRefused(f"its member {name[:100]!r} is there twice")
        seen.add(name.casefold())
        if info.file_size > max(_RATIO_FROM_BYTES, _MAX_RATIO * info.compress_size):
            raise ZipRefused(f"its member {name[:100]!r} is compressed like a bomb")
        if not info.is_dir():
            members[name] = info
    return members
