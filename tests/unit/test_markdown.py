"""Links of the Markdown files, and the root README's map of the code, against what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts)
)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file or folder that exists, and to a heading that it has."""
    text = path.read_text()
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


def test_the_map_of_the_code_names_what_is_there() -> None:
    """Each row names a file and something that the file defines."""
    section = (ROOT / "README.md").read_text().partition("\n## Where in the code\n")[2]
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)`: `([^`]+)` \|", section, re.MULTILINE)
    assert len(rows) >= 10
    wrong = [
        (name, symbol)
        for name, symbol in rows
        if not (ROOT / name).is_file()
        or not re.search(rf"(?m)(def|class) {symbol}\b|^{symbol}: ", (ROOT / name).read_text())
    ]
    assert wrong == []
