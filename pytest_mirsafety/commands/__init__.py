"""What the `mirsafety` command can do: a module each, with `add` and `run`.

`run` takes the parsed options, raises `RunError` for what is wrong, and may give an exit code.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse names it no other way
