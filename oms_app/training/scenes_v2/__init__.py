"""The scenes of Lumen's second generation. They replace `training/scenes` when its weights are shipped: until then the
shipped weights are measured on the first generation's scenes."""
