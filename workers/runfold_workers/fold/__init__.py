"""The fold: a pure function from events to rows."""
