"""One file for each tool: what the tool calls, and nothing else."""
