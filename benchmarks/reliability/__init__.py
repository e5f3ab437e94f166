"""What ``benchmarks/faults.py`` measures: runs that are killed, interrupted and damaged, and what becomes of them."""
