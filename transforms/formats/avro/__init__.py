"""Avro object container files: a schema, and blocks of rows between sync markers."""
