"""Functions for scripts: training and testing tools, inference, export."""
