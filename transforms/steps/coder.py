"""The coder that moves blocks between the workers of an engine."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.coders.typecoders import registry

from beam_score.transforms.arrays.sizes import own_bytes
from beam_score.transforms.rows.block import Block


class BlockCoder(beam.coders.Coder):
    """Encode blocks as Arrow IPC. Pickle would write the whole parent of a sliced batch (15 MB for 100 rows), and
    Beam samples element sizes even between fused steps, so computing the size must be cheap too."""

    def encode(self, block: Block) -> bytes:
        return block.to_bytes()

    def decode(self, encoded: bytes) -> Block:
        return Block.from_bytes(encoded)

    def estimate_size(self, block: Block) -> int:
        return 256 + own_bytes(block.rows) + own_bytes(block.rejected)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return Block


registry.register_coder(Block, BlockCoder)
