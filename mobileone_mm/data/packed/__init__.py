"""Datasets packed into few large files: tar shards in WebDataset's layout, or LMDB.

mmengine's file functions read single images (:mod:`mobileone_mm.data.packed.backend`), so every
loading transform of the hosts works on both.

Why the existing readers are not used:

- The ``webdataset`` library streams shards without a length and an index. mmengine's samplers,
  exact resume, seeds by sample (:mod:`mobileone_mm.training.seeding`) and ``Accuracy`` need both.
  Its indexed reader ``wids`` is compared in docs/data.md.
- mmengine's ``LmdbBackend`` has no labels, reads a missing key as None, takes ASCII names only,
  cannot be pickled when it is open, and shares its environment with forked workers, which LMDB
  forbids.
"""
