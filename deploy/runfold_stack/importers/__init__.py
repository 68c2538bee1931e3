"""Importers of executions that other systems recorded; one package per format.

An importer validates the whole file before its first event and yields deterministic events, so an
import that was interrupted, or is repeated, adds nothing twice.
"""
