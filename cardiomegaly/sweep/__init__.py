"""Many runs by one command: planned, recorded, interrupted and resumed."""
