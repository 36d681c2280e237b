"""How fast: loading, training steps, epochs and memory, each against what it is compared with."""
