"""What the detector does with features: losses in training, detections in inference."""
