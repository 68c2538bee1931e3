"""The answers that several reads share: summaries, cursors, watermarks."""
