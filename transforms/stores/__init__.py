"""Bytes on disk or in an object store: versions, read-ahead, decompression."""
