"""What mkdocs needs for pages that are also read in the repository: the README is the site's first page, and
figures and examples lie outside docs/."""

from __future__ import annotations

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
MOVED = {"](docs/": "](", "](../plots/gallery/": "](gallery/", "](plots/gallery/": "](gallery/"}


def on_files(files, config):
    """Add the pages of the root, the study's figures and the examples to the site."""
    for here, there in PAGES.items():
        files.append(File.generated(config, there, content=(ROOT / here).read_text(encoding="utf-8")))
    outside = {"gallery": ROOT.glob("plots/gallery/*.png"), "examples": ROOT.glob("examples/*.*")}
    for folder, paths in outside.items():
        for path in sorted(paths):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point to where the site has them."""
    for here, there in MOVED.items():
        markdown = markdown.replace(here, there)
    return markdown.replace("](../examples/", "](examples/")
