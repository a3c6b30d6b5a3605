"""The command line: arguments, exit codes, error lines."""
