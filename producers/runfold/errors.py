"""The exceptions of the SDK and the protocol."""


class RunfoldError(Exception):
    """Base class of all exceptions that `runfold` raises deliberately."""


class BrokenEvent(RunfoldError):
    """An event violates the contract; the message says which part and why.

    `raw` holds its bytes, if it could be told apart from its neighbours in a frame.
    """

    raw: bytes = b""


class BrokenFrame(RunfoldError):
    """No event of a stream entry can be read; the message says why."""


class ShardsDiffer(RunfoldError):
    """This process is set to another number of shards than the deployment."""


class SettingInvalid(RunfoldError, ValueError):
    """A setting has an invalid value; the message names it and what is allowed."""
