"""The layer rules of docs/architecture.md, held against every import in the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_mirsafety

PACKAGE = Path(pytest_mirsafety.__file__).parent

LAYERS = (
    {
        "circumstances",
        "defended",
        "digests",
        "errors",
        "exchanges",
        "labelling",
        "printable",
        "protocols",
        "records",
        "taxonomy",
        "texts",
        "whole_files",
    },
    {
        "arms",
        "breakdown",
        "calibration",
        "comparison",
        "config",
        "edits",
        "engine",
        "entropies",
        "evaluation",
        "facts",
        "gates",
        "judge_forms",
        "mode_forms",
        "merging",
        "messages",
        "metamorphic",
        "model_forms",
        "ordering",
        "model_tables",
        "reasoning",
        "redaction",
        "results",
        "sampling",
        "setting_sections",
        "setting_values",
        "sharding",
        "stats",
        "stopping",
        "tally",
        "threshold_settings",
        "trials",
    },
    {"checkpoints", "memory", "prompting", "recordings", "servers", "wire"},
    {
        "attention",
        "backends",
        "channel",
        "data",
        "defences",
        "exports",
        "images",
        "judges",
        "labels",
        "reports",
        "review",
        "run_folder",
        "store",
        "text_models",
    },
    {
        "arm_planning",
        "backend_building",
        "baselines",
        "cautions",
        "defence_building",
        "engine_building",
        "image_passing",
        "inventory",
        "judge_building",
        "option_values",
        "phases",
        "planning",
        "preview",
        "provenance",
        "recorded_data",
        "registry",
        "remote",
        "reporting",
        "run",
        "searches",
        "server_building",
        "serving",
        "strategies",
        "trust",
    },
    {"cli", "commands", "hooks", "plugin"},
)
NOBODY_IMPORTS = {"suites"}
FOR_USERS = {"strategies"}
"""Modules for other people's tests alone, which import what those do."""
WIRE, ADAPTERS, SHELLS = 2, 3, 5
HEAVY = {
    "PIL",
    "hypothesis",
    "huggingface_hub",
    "matplotlib",
    "numpy",
    "openai",
    "pyarrow",
    "scipy",
    "torch",
    "transformers",
} | {*("jinja2", "starlette", "uvicorn")}


def modules() -> dict[str, Path]:
    """Every module by its name inside the package, such as `data.folder`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(p for p in parts if p != "__init__")
        if parts[0] not in NOBODY_IMPORTS and name:
            found[name] = path
    return found


MODULES = modules()


def imports(path: Path, *, top_level: bool = False) -> Iterator[tuple[int, str]]:
    """Relative level and dotted name of every import; `top_level` leaves out those in functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _module_level(tree) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield node.level, base
            if node.level:
                yield from ((node.level, f"{base}.{a.name}".lstrip(".")) for a in node.names)


def _module_level(tree: ast.Module) -> Iterator[ast.AST]:
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not guarded:
            yield node


def inside(name: str, path: Path) -> set[str]:
    """The package's own modules that this one imports, by their first name."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for level, target in imports(path):
        if level:
            base = package[: len(package) - (level - 1)]
            first = [*base, *filter(None, target.split("."))][:2]
            found.add(".".join(first))
        elif target.partition(".")[0] == PACKAGE.name:
            found.add(".".join(target.split(".")[1:3]))
    return {f for f in found if f}


def layer(name: str) -> int:
    first = name.partition(".")[0]
    return next(number for number, names in enumerate(LAYERS) if first in names)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_has_a_layer(name: str) -> None:
    assert any(name.partition(".")[0] in names for names in LAYERS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str) -> None:
    known = {n for names in LAYERS for n in names}
    for target in inside(name, MODULES[name]):
        if target.partition(".")[0] in known:
            assert layer(target) <= layer(name), f"{name} imports {target}"


@pytest.mark.parametrize("name", sorted(n for n in MODULES if layer(n) == ADAPTERS))
def test_adapters_never_import_each_other(name: str) -> None:
    own = name.partition(".")[0]
    for target in inside(name, MODULES[name]):
        assert (
            target.partition(".")[0] == own or target.partition(".")[0] not in LAYERS[ADAPTERS]
        ), target


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_is_for_users_is_imported_by_none_of_us(name: str) -> None:
    assert not {target.partition(".")[0] for target in inside(name, MODULES[name])} & FOR_USERS


@pytest.mark.parametrize("name", sorted(n for n in MODULES if layer(n) < SHELLS))
def test_only_shells_import_pytest(name: str) -> None:
    roots = {target.partition(".")[0] for level, target in imports(MODULES[name]) if not level}
    assert not roots & {"pytest", "_pytest", "xdist", "pluggy"}


@pytest.mark.parametrize("name", sorted(n for n in MODULES if layer(n) not in (WIRE, ADAPTERS)))
def test_heavy_libraries_are_imported_late(name: str) -> None:
    found = imports(MODULES[name], top_level=True)
    assert (
        name in FOR_USERS
        or not {target.partition(".")[0] for level, target in found if not level} & HEAVY
    )


def test_the_rules_bite(tmp_path: Path) -> None:
    wrong = tmp_path / "gates.py"
    wrong.write_text("from . import run\nfrom .data.folder import x\nimport pytest\n", "utf-8")
    assert {"run", "data.folder"} <= inside("gates", wrong)
    assert (0, "pytest") in imports(wrong)
