"""Tests that need a device; `tests.cuda.test_simulator` runs them in processes where the simulator is one."""
