"""The embedded PostgreSQL and Redis of one data directory.

Invariants: a server holds an exclusive lock on its folder from before its start until its last
process ends; its socket's path follows from its folder alone; only the folder's owner and root can
connect. Servers never run as root, and root follows no link in a folder that other users can
change.

If the starter is killed, its servers keep running, and any process that knows the folder finds and
stops them. If a server is killed, the next start recovers its data: reported commits of PostgreSQL
survive, and so do Redis writes that are older than a second. An interrupted first start leaves
`data.new`, which the next start replaces.
"""
