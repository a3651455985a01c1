"""What `gpu_check.py` checks: `correct.py`, `fast_*.py`, `whole.py`; each job is a process."""
