"""`runfold watch`: follow the API's event stream in a terminal, as lines or as JSON.

`sse_client` yields signals, `state` applies them, and `screens` renders the result. After a
disconnect the client resumes from the last event id, so no change is missed or shown twice.
"""
