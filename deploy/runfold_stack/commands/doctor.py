"""`runfold doctor`: check every part of the deployment and name remedies."""

from argparse import Namespace
from datetime import UTC, datetime

from rich.text import Text

from runfold_stack.doctor.examination import examine
from runfold_stack.errors import FAILED, OK
from runfold_stack.options import JSON, option
from runfold_stack.terminal.output import STYLES, plain

from . import Context, command


@command(
    option(
        "--acknowledge", action="store_true", help="report the incidents, then acknowledge them"
    ),
    JSON,
)
def doctor(arguments: Namespace, context: Context) -> int:
    """The checks change nothing. --acknowledge marks the incidents so far as acknowledged, so that
    they are not reported again. The exit code is 1 if a check fails; warnings alone leave it at 0.
    """
    output = context.output
    findings = []
    today = datetime.now(UTC).date()
    for finding in examine(context.settings, today, acknowledge=arguments.acknowledge):
        findings.append(finding)
        if not output.is_json:  # printed as soon as it is known
            level = (f"{finding.level:<5}", STYLES[finding.level])
            check = (f"{finding.check:<18}", "bold")
            output.console.print(Text.assemble(level, check, plain(finding.found)), soft_wrap=True)
            if finding.remedy:
                output.line(f"{'':<23}→ {plain(finding.remedy)}")
    healthy = all(finding.level != "fail" for finding in findings)
    if output.is_json:
        output.json({"healthy": healthy, "findings": findings})
    return OK if healthy else FAILED
