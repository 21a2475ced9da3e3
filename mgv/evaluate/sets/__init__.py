"""Sets: what is evaluated, from our files and published ones."""
