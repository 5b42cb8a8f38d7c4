"""Bytes on disk or in an object store: versions, reads ahead, decompression."""
