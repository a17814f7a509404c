"""Others that move bytes, beside genie-perf."""
