"""What a step costs: the asv suite in `benchmarks.benchmarks`, and scripts for `python -m`."""
