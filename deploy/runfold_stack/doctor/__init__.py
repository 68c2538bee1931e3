"""What `runfold doctor` looks at. Nothing here changes anything, but for
the note that an operator has read of incidents."""
