"""Predicted quality: the Dice and the distance that a mask would have if there were truth, with bounds that hold."""
