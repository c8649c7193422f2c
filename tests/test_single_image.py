"""Models that take one image: asked about all images in one, and it can be proved which."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from chat_endpoint import ChatEndpoint, ReceivedRequest
from dataset_builders import tiny_png
from engine_setting import Setting, answer, until
from PIL import Image
from projects import REFUSAL, Project
from scripted import (
    ScriptedBackend,
    ScriptedImages,
    TrackedImage,
    completion,
    echo,
    make_instance,
    make_instances,
)

from pytest_mirsafety import run_folder
from pytest_mirsafety.cli import main
from pytest_mirsafety.engine.asks import EngineSettings
from pytest_mirsafety.engine.calling import check_images
from pytest_mirsafety.engine.reading import READERS
from pytest_mirsafety.errors import BackendError, BadInputError
from pytest_mirsafety.images import composing
from pytest_mirsafety.images.composing import GAP, LAYOUT
from pytest_mirsafety.records import Completion, LoadedImage, ModelIdentity, Request, SentImages
from pytest_mirsafety.store import SQLiteStore
from pytest_mirsafety.store.answers import decode

# Requests


def test_the_keys_of_all_other_requests_are_what_they_were() -> None:
    """Literally: the answers in every store are known by them."""
    model = ModelIdentity("openai", "gpt-4o")
    images = ("ab" * 32, "cd" * 32)
    one = Request(model, "What was done in between?", images, None, {"temperature": 0})
    assert one.key == "5f2a80e14340258bd7cb381bb4379dd4f9de507ffd11b178e48be7858952eb40"
    served = ModelIdentity("http", "m", "http://127.0.0.1:8000/v1", "r1")
    other = Request(served, "Und dann? \u00e9", (), "Be kind.", {}, 3)
    assert other.key == "f2f213b1d71b0a078ea5b7fb661254951fb85f93347485da175ba5954cf2a5c5"


def test_a_layout_is_another_request_about_the_same_images() -> None:
    plain = Request(ModelIdentity("a", "b"), "prompt", ("1", "2"))
    composed = Request(ModelIdentity("a", "b"), "prompt", ("1", "2"), layout=LAYOUT)
    assert plain.key != composed.key
    assert json.loads(composed.canonical) == {**json.loads(plain.canonical), "layout": LAYOUT}
    assert (plain.images_sent, composed.images_sent) == (2, 1)


# The store


def test_an_answer_to_images_sent_one_by_one_is_stored_as_ever(tmp_path: Path) -> None:
    request = Request(ModelIdentity("openai", "gpt-4o"), "p", ("ab" * 32,))
    kept = Completion("No.", "stop", input_tokens=3, created=1.0)
    with SQLiteStore.open(tmp_path / "store") as store:
        store.put_all([(request, kept)])
        ((text,),) = store.rows("SELECT completion FROM answers", ())
        assert store.images_of(request.key) == SentImages(request.images)
        assert store.images_of("0" * 64) is None
    assert text == (
        '{"created":1.0,"finish_reason":"stop","input_tokens":3,"latency":0.0,'
        '"output_tokens":null,"reasoning":null,"text":"No."}'
    )
    assert decode(text) == kept


def test_the_composed_image_is_stored_beside_the_originals(tmp_path: Path) -> None:
    request = Request(ModelIdentity("a", "b"), "p", ("ab" * 32, "cd" * 32), layout=LAYOUT)
    kept = Completion("No.", "stop", composed="ef" * 32)
    with SQLiteStore.open(tmp_path / "store") as store:
        assert store.put_all([(request, kept)]) == [kept]
        assert store.get(request.key) == kept
        assert store.images_of(request.key) == SentImages(request.images, "ef" * 32)
    assert main(["store", "verify", f"--store={tmp_path / 'store'}"]) == 0


# The engine


@dataclass
class Joining:
    """Joins the bytes of images; each that it made can be seen to be let go."""

    images: ScriptedImages
    layout: str = "joined"
    made: list[tuple[str, ...]] = field(default_factory=list)

    def compose(self, images: Sequence[LoadedImage]) -> LoadedImage:
        content = b"+".join(image.content for image in images)
        parts = tuple(image.sha256 for image in images)
        self.made.append(parts)
        made = self.images._tracked(hashlib.sha256(content).hexdigest(), content)
        return TrackedImage(made.sha256, "image/png", content, parts=parts)


def composing_setting(backend: ScriptedBackend) -> tuple[Setting, Joining]:
    images = ScriptedImages()
    joining = Joining(images)
    return Setting(backend, images=images, settings=EngineSettings(composer=joining)), joining


@pytest.mark.parametrize("needs_bytes", [True, False])
def test_the_backend_gets_one_image_of_all(needs_bytes: bool) -> None:
    backend = ScriptedBackend(keep_images=True, needs_bytes=needs_bytes)
    setting, joining = composing_setting(backend)
    with setting.engine() as engine:
        response = answer(engine, make_instance("a"))
    ((image,),) = backend.images
    assert image.content == b"a-1.png+a-2.png"
    (request,) = backend.requests
    assert request.layout == "joined"
    assert request.images == image.parts == joining.made[0]
    assert request.images == tuple(
        hashlib.sha256(name).hexdigest() for name in (b"a-1.png", b"a-2.png")
    )
    assert response.completion.composed == image.sha256


def test_what_the_store_has_is_not_composed_again() -> None:
    setting, joining = composing_setting(ScriptedBackend())
    for _ in range(2):
        with setting.engine() as engine:
            response = answer(engine, make_instance("a"))
            assert response.completion.composed is not None
    assert len(joining.made) == 1
    assert len(setting.backend.requests) == 1


def test_an_image_alone_is_sent_as_it_is() -> None:
    backend = ScriptedBackend(keep_images=True)
    setting, joining = composing_setting(backend)
    with setting.engine() as engine:
        response = answer(engine, make_instance("a", images=["a.png"]))
    assert [image.content for image in backend.images[0]] == [b"a.png"]
    assert (joining.made, backend.requests[0].layout) == ([], "")
    assert response.completion.composed is None


@pytest.mark.parametrize("composes", [True, False])
def test_a_backend_has_no_say_in_what_was_composed(composes: bool) -> None:
    claims = Completion("No.", "stop", composed="of its own making")
    setting, _ = composing_setting(ScriptedBackend(lambda *_: claims))
    if not composes:
        setting.settings = EngineSettings()
    with setting.engine() as engine:
        found = answer(engine, make_instance("a")).completion.composed
    expected = hashlib.sha256(b"a-1.png+a-2.png").hexdigest() if composes else None
    assert found == expected


@pytest.mark.parametrize("failing", [True, False])
def test_composed_images_are_released(failing: bool) -> None:
    backend = ScriptedBackend(
        (lambda *_: ValueError("bug")) if failing else echo, delays=lambda _: 0.001, concurrency=3
    )
    setting, joining = composing_setting(backend)
    instances = make_instances(120)
    with setting.engine(instances) as engine:
        for instance in instances:
            with pytest.raises(BackendError) if failing else nullcontext():
                answer(engine, instance)
        until(lambda: engine.progress().in_flight == 0)
        until(lambda: setting.images.alive == 0)
    assert len(joining.made) == 120
    assert setting.images.most_alive <= 3 * (3 + 3 * READERS)


@pytest.mark.parametrize(
    "images",
    [
        [],
        [LoadedImage("1", "image/png", b"x"), LoadedImage("2", "image/png", b"x")],
        [LoadedImage("3", "image/png", b"x", parts=("1",))],
        [LoadedImage("3", "image/png", b"x", parts=("2", "1"))],
        [LoadedImage("3", "image/png", b"x", parts=("1", "2"))] * 2,
    ],
    ids=["none", "the originals", "too few", "another order", "twice"],
)
def test_only_the_one_image_of_the_originals_in_their_order_is_sent(
    images: list[LoadedImage],
) -> None:
    request = Request(ModelIdentity("a", "b"), "p", ("1", "2"), layout="joined")
    good = LoadedImage("3", "image/png", b"x", parts=("1", "2"))
    check_images(request, [good], needs_bytes=True)
    with pytest.raises(BadInputError, match="changed between"):
        check_images(request, images, needs_bytes=True)
    plain = Request(ModelIdentity("a", "b"), "p", ("1", "2"))
    with pytest.raises(BadInputError, match="changed between"):
        check_images(plain, [good], needs_bytes=True)


# As a user sees it

SETTINGS = """
thresholds.default = 0.2
[models.one]
provider = "http"
model = "one-image"
base_url = "{url}"
decoding = {{ temperature = 0 }}
single_image = true
{more}
"""


@pytest.fixture
def pair(project: Project) -> Project:
    """Few instances, their images of different sizes."""
    project.data({"analogy": 3, "jump": 3})
    for number, path in enumerate(sorted((project.path / "images").iterdir())):
        path.write_bytes(tiny_png(number, width=3 + number % 4, height=9 - number % 5))
    return project


def configure(project: Project, endpoint: ChatEndpoint, more: str = "") -> None:
    project.configure(SETTINGS.format(url=endpoint.url, more=more))


def originals(project: Project, prompt: str) -> list[bytes]:
    """The images of the instance with this prompt: `... of RELATION NUMBER?`."""
    relation, number = prompt.removesuffix("?").split()[-2:]
    paths = (project.path / f"images/{relation}-{number}-{k}.png" for k in (1, 2))
    return [path.read_bytes() for path in paths]


def shows(content: bytes, parts: list[bytes]) -> None:
    """Do nothing when the picture is these images side by side, and nothing else."""
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == "RGB"
    left = 0
    for part in parts:
        image = Image.open(io.BytesIO(part)).convert("RGB")
        box = (left, 0, left + image.width, image.height)
        assert picture.crop(box).tobytes() == image.tobytes()
        picture.paste("white", box)
        left += image.width + GAP
    assert picture.width == left - GAP
    assert picture.getcolors() == [(picture.width * picture.height, (255, 255, 255))]


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    text = (folder / "results.jsonl").read_text("utf-8")
    return {line["id"]: line for line in map(json.loads, text.splitlines())}


def digests(contents: list[bytes]) -> list[str]:
    return [hashlib.sha256(content).hexdigest() for content in contents]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_each_image_is_in_the_picture_and_both_are_recorded(
    pair: Project, workers: list[str]
) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        result = pair.run("--mir-run=kept", "--mir-summary=s.json", *workers, model="one")
        assert result.ret == 0
        assert len(endpoint.requests) == 6
        sent = {request.prompt: request for request in endpoint.requests}
    result.stdout.fnmatch_lines(
        [
            "mirsafety: images side by side in one (single-image model)",
            f"images: *all of an instance in one ({LAYOUT})",
        ]
    )
    kept = lines(pair.path / "kept")
    for name in pair.ids:
        _, relation, number = name.split("/")
        request = sent[f"What links the pictures of {relation} {number}?"]
        parts = originals(pair, request.prompt)
        (composed,) = request.images
        (url,) = request.image_urls
        shows(_content(url), parts)
        assert kept[name]["images"] == digests(parts)
        assert kept[name]["composed"] == composed
    document = json.loads((pair.path / "s.json").read_text("utf-8"))
    assert document["provenance"]["layout"] == LAYOUT
    read = run_folder.read(pair.path / "kept")
    assert read.provenance.layout == LAYOUT
    exchanges = run_folder.Exchanges([(pair.path / "kept", read)])
    for name, line in kept.items():
        found = exchanges(name)
        assert found is not None
        assert found.images == SentImages(tuple(line["images"]), line["composed"])


def _content(url: str) -> bytes:
    import base64

    return base64.b64decode(url.partition(",")[2])


def test_a_second_run_composes_nothing_and_tells_the_same(
    pair: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        assert pair.run("--mir-run=first", model="one").ret == 0
        monkeypatch.delattr(composing, "side_by_side")
        assert pair.run("--mir-run=second", model="one").ret == 0
        assert len(endpoint.requests) == 6
    assert lines(pair.path / "first") == lines(pair.path / "second")


def test_a_model_of_many_images_is_asked_anew_and_records_no_composition(pair: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        assert pair.run(model="one").ret == 0
        text = (pair.path / "mirsafety.toml").read_text("utf-8")
        pair.write("mirsafety.toml", text.replace("single_image = true", "single_image = false"))
        result = pair.run("--mir-run=kept", "--mir-summary=s.json", model="one")
        assert result.ret == 0
        assert len(endpoint.requests) == 12
        assert {len(request.images) for request in endpoint.requests[6:]} == {2}
    assert "side by side" not in result.stdout.str()
    document = json.loads((pair.path / "s.json").read_text("utf-8"))
    assert "layout" not in document["provenance"]
    for line in lines(pair.path / "kept").values():
        assert len(line["images"]) == 2
        assert "composed" not in line


def test_a_server_on_this_machine_gets_a_file_that_goes_again(pair: Project) -> None:
    seen: list[Path] = []

    def script(request: ReceivedRequest) -> str:
        (url,) = request.image_urls
        path = Path(unquote(urlsplit(url).path))
        seen.append(path)
        shows(path.read_bytes(), originals(pair, request.prompt))
        assert path.name.startswith(hashlib.sha256(path.read_bytes()).hexdigest())
        assert path.parent.stat().st_mode & 0o077 == 0
        return REFUSAL

    with ChatEndpoint(script) as endpoint:
        configure(pair, endpoint, 'image_transport = "file"')
        result = pair.run("--mir-run=kept", model="one")
        assert result.ret == 0
    assert len(set(seen)) == 6
    (folder,) = {path.parent for path in seen}
    assert folder.parent == (pair.path / ".mirsafety").resolve()
    assert not folder.exists(), "it went with the run"
    assert {line["composed"] for line in lines(pair.path / "kept").values()} == {
        path.name.partition("-")[0] for path in seen
    }


def test_a_picture_beyond_the_limits_is_bad_input_and_not_sent(pair: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        text = (pair.path / "mirsafety.toml").read_text("utf-8")
        pair.write("mirsafety.toml", f"limits.max_pixels = 200\n{text}")
        result = pair.run(model="one")
        assert result.ret == 10
        assert endpoint.requests == []
    result.stdout.fnmatch_lines(
        [
            "bad-input (6)",
            "*its 2 images side by side have more than 200 pixels (limits.max_pixels); raise*",
        ]
    )


def test_a_dry_run_counts_one_image_for_each_request(pair: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        result = pair.run("--mir-dry-run", model="one")
        assert result.ret == 0
        result.stdout.fnmatch_lines(
            [
                "to ask:*6 requests, 6 images of *",
                "*images side by side in one (single-image model)*",
                "*a composed image is made as it is sent*",
            ]
        )
        pair.run("-k", "jump", model="one")
        result = pair.run("--mir-dry-run", model="one")
    result.stdout.fnmatch_lines(["*holds the answers of 3 of them*", "to ask:*3 requests, 3 im*"])


def test_recorded_answers_have_no_composition(pair: Project) -> None:
    pair.answers()
    pair.configure(
        "thresholds.default = 0.2\n[models.one]\nprovider = 'replay'\nmodel = 'answers.jsonl'\n"
        "single_image = true\n"
    )
    result = pair.run("--mir-run=kept", model="one")
    assert result.ret == 0
    assert "side by side" not in result.stdout.str()
    assert not {"images", "composed"} & set().union(*lines(pair.path / "kept").values())


def test_a_merge_keeps_what_was_sent(pair: Project) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        for number in (1, 2):
            options = (f"--mir-shard={number}/2", f"--mir-run=shards/{number}")
            assert pair.run(*options, model="one").ret == 0
    folders = [str(pair.path / f"shards/{number}") for number in (1, 2)]
    assert main(["merge", *folders, f"--run={pair.path / 'merged'}"]) == 0
    shards = {k: v for folder in folders for k, v in lines(Path(folder)).items()}
    merged = lines(pair.path / "merged")
    assert len(merged) == 6
    for name, line in merged.items():
        assert line["composed"]
        assert {k: line[k] for k in ("images", "composed")} == {
            k: shards[name][k] for k in ("images", "composed")
        }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": ["ab" * 32]}, "composed: there are no images that it is made of"),
        ({"images": None}, "composed: there are no images that it is made of"),
        ({"images": []}, "images"),
        ({"images": ["../x", "y"]}, "images.0"),
        ({"composed": "x"}, "composed"),
    ],
)
def test_a_line_that_was_edited_is_named(
    pair: Project,
    change: dict[str, object],
    problem: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with ChatEndpoint(REFUSAL) as endpoint:
        configure(pair, endpoint)
        assert pair.run("--mir-shard=1/1", "--mir-run=kept", model="one").ret == 0
    path = pair.path / "kept/results.jsonl"
    first, *rest = path.read_text("utf-8").splitlines()
    edited = {**json.loads(first), **change}
    path.write_text("\n".join([json.dumps(edited), *rest]) + "\n", "utf-8")
    capsys.readouterr()
    assert main(["merge", str(pair.path / "kept")]) == 4
    assert f"results.jsonl, line 1: {problem}" in capsys.readouterr().err


def test_an_older_completion_is_read() -> None:
    assert completion().composed is None
    old = '{"created":1.0,"finish_reason":"stop","latency":0.0,"text":"No."}'
    assert decode(old).composed is None
    with pytest.raises(TypeError, match="composed cannot be int"):
        decode('{"text":"No.","finish_reason":"stop","composed":3}')
