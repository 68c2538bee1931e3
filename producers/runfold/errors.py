"""What the SDK and the contract raise."""


class RunfoldError(Exception):
    """Base of everything that `runfold` raises on purpose."""


class BrokenEvent(RunfoldError):
    """An event that the contract does not allow; the message says which part and why.

    `raw` holds the event as it came, where it could be told apart from its neighbours.
    """

    raw: bytes = b""


class BrokenFrame(RunfoldError):
    """A stream entry of which no event could be read; the message says why."""


class ShardsDiffer(RunfoldError):
    """This process was told another number of shards than the deployment has agreed on."""


class SettingInvalid(RunfoldError, ValueError):
    """A setting has a value that cannot be used; the message names it and what is allowed."""
