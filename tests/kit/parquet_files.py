"""Parquet files that are hard to read, written for tests; `CASES` contains some that were found by damaging intact
files."""

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

CASES = Path(__file__).parents[1] / "cases" / "parquet"


class _Keys(pe.KmsClient):
    """Keys stored in the file itself: enough to write it."""

    def wrap_key(self, key_bytes, master_key_identifier):
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return base64.b64decode(wrapped_key)


def write_encrypted(path, table, columns, footer=False, **options):
    """Write a table with some columns encrypted, and the footer readable or not."""
    how = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": list(columns)}, plaintext_footer=not footer
    )
    factory = pe.CryptoFactory(lambda config: _Keys())
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), how)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table, **options)
    return str(path)


def write_wide(path, columns, rows=3):
    """Write a table of many columns, `c0` and so on, of the numbers 0, 1, 2 ..."""
    numbers = pa.array(range(rows), pa.int64())
    pq.write_table(pa.table({f"c{i}": numbers for i in range(columns)}), path)
    return str(path)
