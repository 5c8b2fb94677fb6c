"""The command line: one file per verb, each of which imports what is heavy only when it runs."""
