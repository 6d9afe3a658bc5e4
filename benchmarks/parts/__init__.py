"""The parts of the report. Each is a function (pool, options) -> `benchmarks.report.Section`."""
