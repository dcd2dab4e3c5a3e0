"""What an image is worth and what a network costs: numbers from arrays and modules."""
