"""What a student is worth: its loss on held-out data, and how far it agrees with its teacher."""
