"""The bare SDK: what it brings along, and that a runner survives a Redis that is away."""

import importlib.metadata
import importlib.util
import re
import sys

ALLOWED = {"runfold", "redis", "msgspec", "zstandard", "pip", "setuptools"}


def needed_by(name: str, seen: set[str]) -> set[str]:
    """A distribution and all that it requires here, without extras."""
    if name in seen:
        return seen
    seen.add(name)
    for requirement in importlib.metadata.requires(name) or []:
        if "extra ==" in requirement:
            continue
        other = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0].lower()
        try:
            importlib.metadata.distribution(other)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        needed_by(other, seen)
    return seen


allowed = set(ALLOWED)
for root in ("redis", "msgspec", "zstandard"):
    allowed |= needed_by(root, set())
installed = {d.metadata["Name"].lower() for d in importlib.metadata.distributions()}
if extra := installed - allowed:
    sys.exit(f"the bare SDK brings more than it should: {sorted(extra)}")

from runfold import Recorder  # noqa: E402

recorder = Recorder("redis://127.0.0.1:1/0")
with recorder.run("smoke", project="ci") as run, run.node("only") as node:
    node.outputs = {"answer": 42}
left = recorder.flush(timeout_s=0.2)
if left.pending + left.spooled != 4:
    sys.exit(f"expected 4 events to wait for Redis, in memory or on disk, got {left}")
for package in ("runfold_storage", "runfold_workers", "runfold_api", "runfold_stack"):
    if importlib.util.find_spec(package) is None:
        sys.exit(f"{package} is not in the wheel")
