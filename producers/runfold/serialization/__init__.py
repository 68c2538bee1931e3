"""Any object, name or error as bounded JSON without secrets."""
