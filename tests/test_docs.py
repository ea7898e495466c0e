"""What the documentation shows runs: the Python blocks of every page in order, and the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import hybridgcm

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITHOUT_PYTHON = {"bias_correction.md", "closures.md", "index.md", "steppers.md", "testing.md"}
MODULES = sorted(m.name for m in pkgutil.walk_packages(hybridgcm.__path__, "hybridgcm."))


def blocks(text):
    """Python blocks of a Markdown file with the line on which each starts."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        yield text[: match.start(1)].count("\n"), match[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_in_order(page, tmp_path, monkeypatch):
    if not page.exists():
        pytest.skip(f"no {page.name} here")
    monkeypatch.chdir(tmp_path)  # it may write files
    found, names = list(blocks(page.read_text())), {"__name__": page.stem}
    assert found or page.name in WITHOUT_PYTHON, f"{page.name} shows no Python"
    for line, code in found:
        exec(compile("\n" * line + code, str(page), "exec"), names)  # tracebacks name the page's line


LINK = re.compile(r"\]\(([^)#\s]+)[^)\s]*\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    if not page.exists():
        pytest.skip(f"no {page.name} here")
    targets = [target for target in LINK.findall(CODE.sub("", page.read_text())) if not target.startswith("http")]
    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.parametrize("name", ["hybridgcm", *MODULES])
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name} fail"
