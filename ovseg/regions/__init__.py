"""Region parts: proposals, their embedding, their classification, the fusion of scores. No mmdet in here."""
