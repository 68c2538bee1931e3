"""The addresses of the API and of the workers' metrics: free ports, URLs, whether they answer."""

import errno
import socket
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from runfold_stack.errors import CommandFailed
from runfold_stack.settings import DEFAULT_API_PORT

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104, recognised, not bound


def choose_port(host: str, wanted: int | None) -> int:
    """Return a free port: the wanted one; without one, the default or any other.

    Raise `CommandFailed` if the wanted port is taken or the host is not one of this machine.
    """
    port = DEFAULT_API_PORT if wanted is None else wanted
    try:
        return _probe(host, port)
    except OSError as error:
        if wanted is None and error.errno == errno.EADDRINUSE:
            return _probe(host, 0)
        problem = f"the API cannot listen on {host} port {port} ({error.strerror or error})"
        raise CommandFailed(f"{problem}: choose others with --host and --port") from error


def choose_metrics_ports(host: str, wanted: int | None, number: int) -> list[int]:
    """Return a port for each worker's metrics: `wanted` and those after it, or free ones."""
    if wanted:
        return [wanted + n for n in range(number)]
    ports: set[int] = set()
    try:
        while len(ports) < number:
            ports.add(_probe(host, 0))
    except OSError as error:
        problem = f"metrics cannot be served on {host} ({error.strerror or error})"
        raise CommandFailed(f"{problem}: choose another RUNFOLD_METRICS_HOST") from error
    return sorted(ports)


def url_of(host: str, port: int) -> str:
    """Return the URL for clients on this machine."""
    reached = _EVERYWHERE.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def answers(url: str, timeout_s: float = 2.0) -> bool:
    try:
        # No proxy: it would resolve the address on its own machine.
        with build_opener(ProxyHandler({})).open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError, ValueError):
        return False


def _probe(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        return int(listener.getsockname()[1])
