"""Pre-training: one optimizer step, the report's schedules, balance, and a loop that can be stopped."""
