"""The arithmetic of the model: each operation in a plain form, and a fast form that must agree with it."""
