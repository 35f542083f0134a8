"""From predictions to metrics, calibration and figures."""
