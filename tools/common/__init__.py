"""What the tools share: paths, pipes, the machine."""
