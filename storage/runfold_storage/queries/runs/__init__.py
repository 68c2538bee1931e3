"""Lists of runs and exports.

`pages` reads a page: `planner` counts the matches and chooses an index scan (`index_scans`), and
`sql` has the statements. `export` reads all matches, page by page.
"""
