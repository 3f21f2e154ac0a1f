"""Training of a trial, one epoch at a time: compiled steps, metrics, states."""
