"""Apache Flink: an embedded cluster, or an existing one."""
