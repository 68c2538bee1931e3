"""The routes, one module per subject.

A route calls one method of `History`, `Admin`, `StreamWriter` or the broker, which checks the
values; it holds no state and no logic beyond HTTP.
"""
