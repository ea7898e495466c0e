"""What the documentation shows runs: the README's Python blocks in order, and the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import hybridgcm

README = Path(__file__).parents[1] / "README.md"
PAGES = [page for page in sorted((README.parent / "docs").glob("*.md")) if "```python" in page.read_text()]
MODULES = sorted(m.name for m in pkgutil.walk_packages(hybridgcm.__path__, "hybridgcm."))


def blocks(text):
    """Python blocks of a Markdown file with the line on which each starts."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
        yield text[: match.start(1)].count("\n"), match[1]


@pytest.mark.skipif(not README.exists(), reason="no README here")
def test_the_code_of_the_readme_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it may write files
    found, names = list(blocks(README.read_text())), {"__name__": "readme"}
    assert found, "the README shows no Python"
    for line, code in found:
        exec(compile("\n" * line + code, str(README), "exec"), names)  # tracebacks name the README's line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_the_pages_runs_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for line, code in blocks(page.read_text()):
        exec(compile("\n" * line + code, str(page), "exec"), names)


@pytest.mark.parametrize("name", ["hybridgcm", *MODULES])
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name} fail"
