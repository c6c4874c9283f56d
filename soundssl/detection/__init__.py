"""From scores of windows to what is heard when, in the formats that people open it in."""
