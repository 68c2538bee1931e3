"""A web application that records a run for each request, for gunicorn.

`PATCHED_FIRST=1`: gevent patches the standard library before anything else is imported. With
`EMIT_FIRST=1` the recorder has sent something before it is forked.
"""

import os

if os.environ.get("PATCHED_FIRST"):
    from gevent import monkey

    monkey.patch_all()

import gevent
from flask import Flask

from runfold import Recorder

recorder = Recorder()
if os.environ.get("EMIT_FIRST"):
    with recorder.run("preload"):
        pass
    recorder.flush()

app = Flask(__name__)


@app.get("/run/<int:number>")
def record(number: int) -> str:
    """A run that lets other requests go on in its middle."""
    with recorder.run("request", inputs={"number": number}):
        gevent.sleep(0.01)
    recorder.flush(5)
    return "recorded"


@app.get("/unflushed/<int:number>")
def record_only(number: int) -> str:
    """The same without a flush of its own."""
    with recorder.run("request", inputs={"number": number}):
        gevent.sleep(0.01)
    return "recorded"
