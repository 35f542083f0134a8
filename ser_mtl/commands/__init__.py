"""One small file a verb of the command `ser-mtl`, imported when it is called."""
