"""The routes, one module per subject.

A route validates its parameters, calls one method of `History`, `Admin`, `StreamWriter` or `Live`,
and returns the result; it holds no state and no logic beyond HTTP.
"""
