"""The command line of the tools: arguments, exit codes and error lines."""
