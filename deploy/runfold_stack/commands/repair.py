"""`runfold repair`: correct what `verify` finds, and nothing else."""

from argparse import Namespace

from runfold_stack.exit_codes import FAILED, OK
from runfold_stack.options.selection import TIMES
from runfold_workers.integrity.repair import repair

from . import Context
from .verify import compare, configure

__all__ = ["EPILOG", "configure", "run"]

EPILOG = f"""\
examples:
  runfold repair                    everything that `runfold verify` finds
  runfold repair --run RUN

Ingest and reads continue. A difference that has disappeared in the meantime is left alone. If whole
tables are wrong, use `runfold rebuild`, which resumes after an interruption. The exit code is 1 if
the ledger has events that cannot be read.

{TIMES}
"""


def run(arguments: Namespace, context: Context) -> int:
    """Compare and correct."""
    findings = compare(arguments, context, correct=repair)
    return FAILED if any(not run.is_repairable for run in findings.runs) else OK
