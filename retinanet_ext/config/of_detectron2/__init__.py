"""What the keys of Detectron2 may be: rules that it does not check, or only by failing late."""
