"""One neuron and one number at a time, compiled: the twins of `gates`, `membrane`, `synapse` and `noise`."""
