"""The report of a run, as Markdown and as one HTML page with plots. Pure: made from `record.Run` alone."""
