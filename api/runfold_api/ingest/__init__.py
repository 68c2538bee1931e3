"""From request bodies to the streams."""
