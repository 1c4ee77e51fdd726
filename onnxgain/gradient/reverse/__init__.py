"""The reverse walk: seed, gradient rules, and the operators they are lowered to."""
