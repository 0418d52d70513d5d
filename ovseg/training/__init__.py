"""Training: towers from scratch on EmojiScenes, and the loop around any config."""
