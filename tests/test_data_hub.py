"""The hub, through its real client: a local server speaks the endpoints that the client calls."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from dataset_builders import make_items, write, write_folder, write_parquet

from pytest_mirsafety import data
from pytest_mirsafety.errors import MissingExtraError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/suite"

LOAD_EACH = """
import json, sys
from pathlib import Path
from pytest_mirsafety import data
from pytest_mirsafety.errors import RunError

found = {}
for source in sys.argv[1:]:
    try:
        dataset = data.load(source, base=Path("/nowhere"), cache=Path("cache"))
    except RunError as error:
        found[source] = {"error": f"{type(error).__name__}: {error}"}
    else:
        ref = dataset.instances[0].images[0]
        found[source] = {
            "identity": dataset.identity,
            "name": dataset.name,
            "revision": dataset.revision,
            "warnings": dataset.warnings,
            "image": len(ref.source.read(ref.locator)),
        }
print(json.dumps(found))
"""


@dataclass
class Hub:
    """Serves one dataset repository under `root`, and notes what is asked for."""

    root: Path
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if "acme/gated" in path and "resolve" in parts:
            return self.refuse(403, "GatedRepo")
        if "acme/broken" in path:
            return 500, {}, b"{}"
        if "acme/none" in path:
            return self.refuse(401, "RepoNotFound")
        revision = parts[5] if parts[0] == "api" else parts[4]
        if revision not in ("main", COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if parts[0] == "api":
            value = self.tree() if parts[4] == "tree" else {"id": REPOSITORY, "sha": COMMIT}
            return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()
        content = (self.root / "/".join(parts[5:])).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content

    def refuse(self, status: int, code: str) -> tuple[int, dict[str, str], bytes]:
        return status, {"X-Error-Code": code, "X-Error-Message": "no\nentry"}, b"{}"

    def tree(self) -> list[dict[str, Any]]:
        files = [path for path in sorted(self.root.rglob("*")) if path.is_file()]
        return [
            {
                "type": "file",
                "path": path.relative_to(self.root).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for path in files
        ]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(write_parquet(tmp_path_factory.mktemp("hub"), make_items(), shards=2))
    write(hub.root / "README.md", b"# A suite")
    write(hub.root / "weights.bin", b"not needed")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, content = hub.answer(unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value.replace("\n", " "))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815 - its name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def load_each(home: Path, address: str, *sources: str, **environ: str) -> dict[str, dict[str, Any]]:
    """Load each source in a process whose hub is at `address` and whose cache is in `home`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k}
    environment = kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **environ,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD_EACH, *sources],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path) -> dict[str, dict[str, Any]]:
    repositories = (
        REPOSITORY,
        f"{REPOSITORY}@main",
        f"{REPOSITORY}@{COMMIT}",
        f"{REPOSITORY}@v9",
        "acme/none",
        "acme/gated",
        "acme/broken",
    )
    return load_each(home, hub.address, *(f"hub:{name}" for name in repositories))


def test_the_hub_gives_what_the_other_layouts_give(
    online: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    own = data.load(f"folder:{write_folder(tmp_path, make_items())}", base=tmp_path)
    for revision in ("", "@main", f"@{COMMIT}"):
        found = online[f"hub:{REPOSITORY}{revision}"]
        assert found["identity"] == own.identity
        assert found["name"] == "mir-safetybench"
        assert found["revision"] == COMMIT
        assert found["image"] > 0


def test_a_revision_that_can_move_is_a_warning(online: dict[str, dict[str, Any]]) -> None:
    assert online[f"hub:{REPOSITORY}@{COMMIT}"]["warnings"] == []
    [none] = online[f"hub:{REPOSITORY}"]["warnings"]
    assert none.startswith("no revision is given")
    [moving] = online[f"hub:{REPOSITORY}@main"]["warnings"]
    assert moving.startswith("the revision 'main' can move")
    for warning in (none, moving):
        assert f'data = "hub:{REPOSITORY}@{COMMIT}"' in warning


def test_only_what_is_needed_is_fetched(online: dict[str, dict[str, Any]], hub: Hub) -> None:
    assert online
    fetched = {path.split(f"{COMMIT}/")[1] for path in hub.asked if f"{COMMIT}/" in path}
    assert "README.md" in fetched
    assert "data/train-00001-of-00002.parquet" in fetched
    assert "weights.bin" not in fetched


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (f"{REPOSITORY}@v9", "has no revision 'v9'"),
        ("acme/none", "there is no such dataset, or it needs a login"),
        ("acme/gated", "is gated"),
        ("acme/broken", "the hub cannot be reached"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(
    online: dict[str, dict[str, Any]], name: str, problem: str
) -> None:
    message = online[f"hub:{name}"]["error"]
    assert message.startswith(f"DataError: hub:{name}: ")
    assert problem in message
    assert message.isprintable()


def test_without_its_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="install pytest-mirsafety with the extra 'hub'"):
        data.load(f"hub:{REPOSITORY}@{COMMIT}", base=Path())


def test_without_the_hub_the_cache_serves(
    online: dict[str, dict[str, Any]], hub: Hub, home: Path
) -> None:
    pinned, other = f"hub:{REPOSITORY}@{COMMIT}", "hub:acme/other"
    before = len(hub.asked)
    found = load_each(home, hub.address, pinned, other, HF_HUB_OFFLINE="1")
    assert len(hub.asked) == before
    assert found[pinned] == online[pinned]
    assert "the hub cannot be reached" in found[other]["error"]


def test_without_a_network_the_cache_serves(online: dict[str, dict[str, Any]], home: Path) -> None:
    pinned, other = f"hub:{REPOSITORY}@{COMMIT}", "hub:acme/other"
    found = load_each(home, "http://127.0.0.1:9", pinned, other)
    assert found[pinned] == online[pinned]
    assert "the hub cannot be reached" in found[other]["error"]
