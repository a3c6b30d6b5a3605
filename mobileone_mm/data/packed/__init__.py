"""Datasets packed into few large files, for storages that dislike many small ones.

Two layouts, written by ``tools/dataset_converters/pack_dataset.py`` and read by ``mobileone_mm.PackedDataset``: tar
shards as WebDataset has them, and LMDB. What there was, and why it did not do:

- The ``webdataset`` library streams its shards: its datasets are iterable, without a length and
  without an index. mmengine's loops and samplers, its exact resume and this project's seeds by
  sample (:mod:`mobileone_mm.training.seeding`) all need a map from index to sample, ``Accuracy``
  needs each image exactly once over all processes, and a stream gives neither. Here the layout is
  kept, so that ``webdataset`` reads these shards too, and the tar headers are indexed once; a sample
  is then one ``pread``. What streaming is for, sequential reading, is the work of the sampler.
- mmengine's ``LmdbBackend`` has no notion of labels, reads a missing key as None (which ends in a
  TypeError of the decoder), takes ASCII names only, cannot be pickled once it is open, and after a
  fork shares its environment with the parent, which LMDB forbids. The layout is one that it reads:
  the key is the name of the file, the value are its bytes.

Both are reached through mmengine's file backends, so that any loader of images or masks of the
three hosts reads them (:mod:`mobileone_mm.data.packed.backend`).
"""
