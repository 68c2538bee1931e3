"""Write a batch: positions, ledger, runs, nodes, rollups and change log in one transaction.

A batch is encoded first (`batch_encoding`), which needs no database, so that one batch can be
encoded while another is written. A small batch is one statement (`single_statement`); all others
use COPY and several statements (`batch_writer`). Both move the positions first, by compare-and-set,
so either everything of a batch is committed, once, or nothing is.

Other writers of rows (deletion, repair, restore) lock the shard and use `write_projections`.
"""
