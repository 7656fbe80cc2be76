"""From images and any words to label maps: the predictor, its result, folders and videos."""
