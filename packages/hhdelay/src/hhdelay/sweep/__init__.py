"""Maps over any two settings, tile by tile, on local processes or a dask cluster."""
