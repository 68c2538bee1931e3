"""The contract of what is sent: events, ids, frames and streams."""
