"""How good a model is at something: questions with one right answer."""
