"""A server may open the images of the dataset, and as little else as can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_mirsafety import load_dataset
from pytest_mirsafety.backends.media import folder_of_images
from pytest_mirsafety.data.files import FileImages
from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.protocols import ImageSource
from pytest_mirsafety.records import ImageRef, Instance
from pytest_mirsafety.taxonomy import Category, Relation


def instance_with(source: ImageSource, *locators: str) -> Instance:
    images = tuple(ImageRef(name, name, source, None) for name in locators)
    return Instance("i", Relation.JUMP, Category.PRIVACY, "q?", "p?", images)


def write(root: Path, *names: str) -> FileImages:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return FileImages(root)


def test_the_folder_is_the_narrowest_that_holds_all_images(tmp_path: Path) -> None:
    source = write(tmp_path, "a/b/1.png", "a/b/2.png", "a/c/3.png", "secret.txt")
    assert folder_of_images([instance_with(source, "a/b/1.png")]) == tmp_path / "a" / "b"
    both = [instance_with(source, "a/b/1.png", "a/b/2.png"), instance_with(source, "a/c/3.png")]
    assert folder_of_images(both) == tmp_path / "a"


def test_links_lead_to_where_the_server_looks(tmp_path: Path) -> None:
    source = write(tmp_path, "real/1.png", "real/deep/2.png")
    (tmp_path / "shown").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real" / "link.png").symlink_to(tmp_path / "real" / "deep" / "2.png")
    assert folder_of_images([instance_with(source, "shown/1.png")]) == tmp_path / "real"
    linked = instance_with(source, "real/link.png")
    assert folder_of_images([linked]) == tmp_path / "real" / "deep"


def test_a_missing_image_is_left_to_who_asks_with_it(tmp_path: Path) -> None:
    source = write(tmp_path, "a/1.png")
    found = folder_of_images([instance_with(source, "b/no.png", "a/1.png")])
    assert found == tmp_path / "a"


def test_what_is_extracted_lies_in_a_folder_of_its_own(tmp_path: Path) -> None:
    dataset = load_dataset("sample", base=tmp_path, cache=tmp_path / "cache")
    folder = folder_of_images(dataset.instances)
    assert folder.parent == (tmp_path / "cache").resolve()
    assert not list(folder.iterdir()), "nothing was extracted to know it"


def test_the_whole_file_system_is_never_opened(tmp_path: Path) -> None:
    class Anywhere:
        def stamp(self, locator: str) -> str:
            return locator

        def read(self, locator: str) -> bytes:
            return locator.encode()

        def path(self, locator: str) -> Path | None:
            return None if locator == "none" else Path(locator)

    source = Anywhere()
    with pytest.raises(BadInputError, match='no folder in common but /: set image_transport = "ba'):
        folder_of_images([instance_with(source, "/usr/x.png", "/var/y.png")])
    with pytest.raises(BadInputError, match="no image of the dataset is a file on this machine"):
        folder_of_images([instance_with(source, "none")])
