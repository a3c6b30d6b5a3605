"""What every tool does with a config: the config pass, and the Runner built and run from its result."""
