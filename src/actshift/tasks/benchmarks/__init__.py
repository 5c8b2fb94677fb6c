"""The tasks, one a file, each of which defines `TASK`; a new file is a new task."""
