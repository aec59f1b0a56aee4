"""Injects faults into a running instance under load, and counts what callers lost.

Reading order: load.py (what callers see), instance.py (where the parts run), faults.py (what is
done to them), report.py (the table), __main__.py (the command behind scripts/chaos.sh).
"""
