"""Claims as commands: each runs an experiment from nothing and prints what it found."""
