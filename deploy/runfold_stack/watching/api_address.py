"""Which API a command talks to: that of the settings, else that of the `up` in the data directory,
else one at the address where `api` would listen."""

from runfold_stack.addresses import url_of
from runfold_stack.settings import DEFAULT_API_PORT, Settings
from runfold_stack.up_state import find_up


def api_address(settings: Settings) -> str:
    """Its URL, without a slash at the end."""
    if settings.api_url is not None:
        return settings.api_url
    up = find_up(settings.home)
    if up is not None and up.api_url is not None:
        return up.api_url
    return url_of(settings.api_host, settings.api_port or DEFAULT_API_PORT)
