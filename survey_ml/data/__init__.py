"""Reading and writing: the only package that knows Zarr, FITS and Parquet."""
