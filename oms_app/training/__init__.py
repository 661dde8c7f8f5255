"""Making the embedded models: captioned scenes, the base model Lumen, OMS modules."""
