"""What keeps the indexes true in the background: sweeping what ended, putting back what is missing."""
