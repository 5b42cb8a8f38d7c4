"""Apache Flink: an embedded cluster, or one that is there."""
