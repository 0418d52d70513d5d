"""One file per method. A file holds what makes the method: its readout, its zoo rows, its protocols."""
