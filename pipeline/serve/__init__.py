"""The contract online: a server that answers in the protocol of TensorFlow Serving."""
