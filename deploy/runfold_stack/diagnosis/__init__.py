"""What `runfold doctor` looks at. Nothing here changes anything."""
