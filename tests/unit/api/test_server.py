"""The listening address of the API."""

import asyncio
import socket

from runfold_api.server import bind, url_of


def test_connections_have_no_nagle_delay() -> None:
    """Without TCP_NODELAY each response waits 40 ms for the client's delayed ACK."""

    async def delay_is_off() -> bool:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()
            await writer.wait_closed()

        with bind(port=0) as listener:
            async with await asyncio.start_server(look, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                result = await found
                writer.close()
                await writer.wait_closed()
        return result

    assert asyncio.run(delay_is_off())


def test_a_free_port() -> None:
    """Port 0 takes a free port, which the URL contains."""
    with bind(port=0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
