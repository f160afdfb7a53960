"""What a run is made of: frozen settings that are checked when built, presets, recipes, and exact counts."""
