"""Serialization: any Python value as bounded JSON without secrets.

Recording never fails because of a value: what cannot be recorded becomes a text in square brackets
that says why. Three steps, in different threads:

- `payloads` encodes a caller's object, in the calling thread and at the call, so that a later
  change of it is not recorded. `objects` reads it, `redaction` masks sensitive keys on the way.
- `normalize` makes names, ids, numbers and tags fit the contract; `exceptions` does so for errors.
- `event_cleanup` encodes a whole event in the flusher's thread. Events of the SDK are clean; those
  that a caller built are redacted and normalized first. `BrokenEvent` says what cannot be repaired.

`intake` does the same for events that other senders encoded: API, CLI and JSON frames.
"""
