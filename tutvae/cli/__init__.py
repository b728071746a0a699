"""The command line, `tutvae`."""
