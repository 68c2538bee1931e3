"""The routes, one module per subject.

Names and types of parameters are checked before a route runs (`web.query_validation`). It calls one
method of `History`, `Admin`, `StreamWriter` or the broker, which checks the values, and returns the
result; it holds no state and no logic beyond HTTP.
"""
