"""Write a batch: positions, ledger, runs, nodes, rollups and change log in one transaction.

A batch is encoded first (`batch_encoding`), which needs no database, so that one batch can be
encoded while another is written. A small batch is one statement (`single_statement`); a larger one
uses COPY and several statements (`batch_writer`). Both move the positions first, by compare-and-
set, so either everything of a batch is committed, once, or nothing is. If a worker dies halfway,
PostgreSQL rolls back, and the next worker reads the same frames again.

Other writers of rows (deletion, repair, restore) lock the shard and use `write_projections`.
"""
