"""TFRecord files of tf.Examples or raw records."""
