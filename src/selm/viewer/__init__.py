"""report.html: a run to look through in a browser, in one file and without a server."""
