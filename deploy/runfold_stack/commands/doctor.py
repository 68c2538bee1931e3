"""`runfold doctor`: check that all parts are well, and say what to do where one is not."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from datetime import UTC, datetime

from rich.text import Text

from runfold_stack.doctor.examination import examine
from runfold_stack.exit_codes import FAILED, OK
from runfold_stack.terminal.output import STYLES, plain

from . import Context

_EPILOG = """\
Changes nothing, but for the note that --acknowledge leaves: incidents up to now are not reported
again. The exit code is 1 if anything fails; warnings alone do not make it so.
"""


def configure(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--acknowledge", action="store_true", help="take note of the incidents, once reported"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: Namespace, context: Context) -> int:
    """Print each finding as it comes."""
    output = context.output
    findings = []
    today = datetime.now(UTC).date()
    for finding in examine(context.settings, today, acknowledge=arguments.acknowledge):
        findings.append(finding)
        if output.is_json:
            continue
        line = Text.assemble(
            (f"{finding.level:<5}", STYLES[finding.level]),
            (f"{finding.check:<18}", "bold"),
            plain(finding.found),
        )
        output.console.print(line, soft_wrap=True)
        if finding.remedy:
            output.line(f"{'':<23}→ {plain(finding.remedy)}")
    healthy = all(finding.level != "fail" for finding in findings)
    if output.is_json:
        output.json({"healthy": healthy, "findings": findings})
    return OK if healthy else FAILED
