"""Unit tests of `loadtest/`: plans, arrivals, histograms, the oracle. No server is started."""
