"""The command line and the configuration files of TensorFlow Serving, as settings of this server."""
