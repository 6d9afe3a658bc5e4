"""Threads, memory, processes and start-up of the machine that this runs on."""
