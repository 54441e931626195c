"""What architects look at: summary, tables, pictures, one HTML page, Perfetto traces."""
