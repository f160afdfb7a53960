"""Results of a sweep on disk: zarr through xarray, a chunk a tile, written once."""
