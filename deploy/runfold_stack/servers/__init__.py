"""Embedded Valkey and PostgreSQL, also as root."""
