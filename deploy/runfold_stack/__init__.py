"""The command line and the local stack: the `runfold` command, embedded servers, the demo.

Only `cli` and the demo read the environment. Every error that is to be expected ends a command with
one line that names the culprit and the remedy, and with a documented exit code.
"""
