"""The site: its reference has every public name, and it builds without a warning or a dead link."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from docs.reference import generate
from samplers import list_samplers

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(generate.PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_topic(package: str) -> None:
    listed = [name for names in generate.public_names(package).values() for name in names]
    assert sorted(listed) == sorted(getattr(import_module(package), "__all__", ()))


def test_every_sampler_has_a_section() -> None:
    pages = "".join(text for _, text in generate.sampler_pages())
    for name in list_samplers():
        assert f"\n{name}\n~" in pages, name


def test_a_name_without_a_topic_is_refused() -> None:
    with pytest.raises(ValueError, match="belongs to no topic"):
        generate.topic_of("samplers", "x", "samplers.nowhere")


@pytest.mark.slow
def test_the_site_builds_strictly_and_documents_every_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", "docs", "-b", "html"]
    done = subprocess.run(
        [*command, ".", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = {name for kind, names in inventory.items() if "py:" in kind for name in names}
    for package in PACKAGES:
        public = getattr(import_module(package), "__all__", ())
        assert {f"{package}.{name}" for name in public} <= documented
