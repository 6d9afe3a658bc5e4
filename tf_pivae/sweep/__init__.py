"""Sweeps: many trainings that differ in a few settings, each a process and a run directory of its own."""
