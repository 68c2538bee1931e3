"""A child that is one process of the API."""

import threading

from benchmarks.children import arguments, await_end, await_go, say
from runfold_api import Settings
from runfold_api.server import bind, freeze_gc, make_server, url_of


def main() -> None:
    """In the child: says the URL once it listens, and ends with the parent's block."""
    given = arguments()
    with bind(port=0) as listener:
        listener.listen()
        server = make_server(
            Settings(redis_url=given["redis_url"], database_url=given["database_url"])
        )
        freeze_gc()
        await_go()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        say({"url": url_of(listener)})
        await_end()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
