"""The command that decides over all shards, as somebody who ran one of them would type it."""

from __future__ import annotations

import re
import shlex
import textwrap
from typing import Final

from ..printable import one_line
from ..sharding import Shard

_MOST_NAMED: Final = 8


def merge_command(folder: str, shard: Shard, *, width: int = 80) -> list[str]:
    """Its lines; several can be copied as one.

    The other shards' folders are taken to be named as this one's, by their numbers.
    """
    folders = [shlex.quote(one_line(name)) for name in _folders(folder, shard)]
    if len(folders) > _MOST_NAMED:
        folders[2:-1] = ["..."]
    words = ["mirsafety", "merge", *(folders or [shlex.quote(one_line(folder)), "OTHER-FOLDERS"])]
    if len(line := "  " + " ".join(words)) <= width:
        return [line]
    # A name with spaces is one word, which textwrap could not know.
    held = " ".join(word.replace(" ", "\0") for word in words)
    lines = textwrap.wrap(
        held,
        width - 2,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\0", " ") for line in [f"{one} \\" for one in lines[:-1]] + lines[-1:]]


def _folders(folder: str, shard: Shard) -> list[str]:
    """One for each shard; none if the name does not tell which shard it is of."""
    named = folder.rstrip("/")
    start = named.rfind("/") + 1
    for match in re.finditer(r"[0-9]+", named[start:], re.ASCII):
        if int(match[0]) == shard.index:
            before, after = named[: start + match.start()], named[start + match.end() :]
            digits = len(match[0]) if match[0].startswith("0") else 0
            return [f"{before}{i:0{digits}d}{after}" for i in range(1, shard.count + 1)]
    return []
