"""An app of Flower that uses nothing of this project but its model and its texts."""
