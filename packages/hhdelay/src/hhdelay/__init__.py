"""Hodgkin-Huxley neurons with noise, coupled through delayed synapses."""

__version__ = "0.0.1"
