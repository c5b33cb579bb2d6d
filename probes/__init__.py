"""What features are worth: figures, and the transfer of features to other tasks."""
