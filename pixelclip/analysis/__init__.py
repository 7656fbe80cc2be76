"""What a trained model is looked at with: its speed, its prompts and its clusters."""
