"""Running a command as if nobody watched, and recording what it did."""
