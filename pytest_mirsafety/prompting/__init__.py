"""What judges and guards share: texts made fit to be shown to the model that is to tell."""
