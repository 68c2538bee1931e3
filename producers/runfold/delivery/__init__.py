"""From the runner's thread to the streams: buffer, flusher, frames, forks and exits."""
