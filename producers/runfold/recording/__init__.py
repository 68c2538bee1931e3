"""What a runner talks to: the recorder and the handles of runs and nodes."""
