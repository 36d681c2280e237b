"""What a run leaves behind: run folders read and written, plots, pages and the sweep report."""
