"""The JavaScript modules of the page: every import finds its file, and none is circular."""

import posixpath
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from runfold_api.routes.static_files import FOLDER

IMPORT = re.compile(
    r"""^\s*(?:import|export)\b(?:[^"';]*?\bfrom)?\s*["']([^"']+)["']""", re.MULTILINE
)
NAMES = re.compile(r"""^import \{([^}]*)\} from "([^"]+)";""", re.MULTILINE)
EXPORT = re.compile(
    r"^export (?:async )?(?:function|class|const|let) ([A-Za-z_$][\w$]*)", re.MULTILINE
)


def imports_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """The files that each file imports, by their paths below the page's folder."""
    return {
        path: {
            posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            for target in IMPORT.findall(source)
        }
        for path, source in sources.items()
    }


def problems_of(sources: Mapping[str, str]) -> Iterator[str]:
    """Imports of files that do not exist, and one circle of imports if there is any."""
    found = imports_of(sources)
    for path, targets in found.items():
        for target in sorted(targets - sources.keys()):
            yield f"{path} imports {target}, which does not exist"
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        yield f"circular imports: {' <- '.join(error.args[1])}"


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """The text of every module by its path."""
    return {path.relative_to(FOLDER).as_posix(): path.read_text() for path in FOLDER.rglob("*.js")}


def test_no_module_is_missing_or_imports_itself_by_way_of_others(sources: dict[str, str]) -> None:
    """The lists' views and their dialogs once imported each other."""
    assert list(problems_of(sources)) == []
    assert sum(map(len, imports_of(sources).values())) > 50


def test_every_imported_name_is_exported(sources: dict[str, str]) -> None:
    """A browser refuses the whole page for one name that a module does not have."""
    exported = {path: set(EXPORT.findall(source)) for path, source in sources.items()}
    for path, source in sources.items():
        for names, target in NAMES.findall(source):
            module = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            missing = {name.strip() for name in names.split(",")} - exported[module]
            assert not missing, f"{path} imports {missing} from {module}"


def test_every_module_is_imported(sources: dict[str, str]) -> None:
    """Nothing is shipped that no page uses."""
    used = set().union(*imports_of(sources).values())
    assert sources.keys() - used == {"main.js"}


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ({"a.js": 'import "./b.js";', "b.js": 'export { x } from "./a.js";'}, "circular imports"),
        ({"d/a.js": 'import {\n  x,\n} from "../b.js";'}, "d/a.js imports b.js, which does not"),
        ({"a.js": 'import * as b from "./a.js";'}, "circular imports"),
    ],
)
def test_a_circle_and_a_missing_file_are_found(sources: dict[str, str], problem: str) -> None:
    """Imports and exports, over several lines, of the file itself and of others."""
    (found,) = problems_of(sources)
    assert found.startswith(problem)
