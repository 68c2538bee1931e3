"""Work in the background: the kinds of jobs, the queue and its worker."""
