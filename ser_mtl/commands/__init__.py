"""One small file per command of `ser-mtl`, imported when it is called."""
