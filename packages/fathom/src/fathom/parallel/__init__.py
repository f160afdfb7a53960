"""Many processes: groups of ranks, experts and stages across them (report section 3.2)."""
