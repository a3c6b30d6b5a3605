"""Datasets packed into few large files: tar shards in WebDataset's layout, or LMDB.

The ``webdataset`` library streams without a length and an index, which samplers, exact resume and
seeds by sample need; docs/data.md compares its reader ``wids``. mmengine's ``LmdbBackend`` has no
labels, reads a missing key as None, and can neither be pickled when it is open nor be forked.
"""
