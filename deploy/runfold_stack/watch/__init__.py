"""`runfold watch`: follow the API's event stream in a terminal, as lines or as JSON.

`sse_client` yields signals (connected, received, disconnected), `state` applies them, and `screens`
renders the result. After a disconnect the client resumes from the last event id, so no change is
missed or shown twice; a client that was away for too long gets a new snapshot.
"""
