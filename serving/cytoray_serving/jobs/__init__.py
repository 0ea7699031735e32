"""Work that takes longer than a request should: slides, volumes, plates, movies, folders of thousands of images."""
