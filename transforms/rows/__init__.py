"""The block, the element of every PCollection: good and rejected rows as Arrow, with their original bytes."""
