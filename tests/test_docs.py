"""The front door: a README that people finish, links and files that exist, commands that the parser knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mr3.cli.stages import STAGES

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), Path("benchmarks/README.md"), *sorted(Path("docs").glob("*.md"))]
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_CONFIG = re.compile(r"(?:configs|docs/examples)/[\w./-]+\.yaml")
_COMMAND = re.compile(r"(?:^|[`/ ])mr3 ([a-z][a-z-]+)(?= --config)", re.M)


def test_the_readme_can_be_read_to_its_end() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in _LINK.findall(text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [
        f for f in _CONFIG.findall(text) if not Path(f).is_file() and not re.search("[A-Z]{4}", f)
    ]  # NAME stands for any
    assert not missing
    assert set(_COMMAND.findall(text)) <= STAGES.keys()
