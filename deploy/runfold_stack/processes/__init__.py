"""Child processes, ports, signals and readiness."""
