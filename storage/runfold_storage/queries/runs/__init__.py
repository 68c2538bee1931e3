"""Lists of runs and exports.

`pages` reads a page: `planner` counts the matches and chooses an index scan (`index_scans`), and
`sql` has the statements. Pages are keyset-paginated (`keyset`), so that runs that arrive meanwhile
neither shift nor repeat any. A page examines a bounded number of runs. `export` reads all matches,
page by page.
"""
