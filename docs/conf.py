"""Sphinx settings. Build with `pip install -e ".[docs]" && sphinx-build -W docs runs/docs`."""

project = "hybridgcm"
copyright = "the authors of hybridgcm, Apache-2.0"
extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build"]
# Links to files of the repository that are no page of these docs: they work where the files are, on GitHub.
suppress_warnings = ["myst.xref_missing"]
