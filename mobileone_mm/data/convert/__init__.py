"""Convert datasets: VOC masks and images of single objects from COCO annotations."""
