"""`python -m shipping FOLDER`: builds the image of a node into the folder."""

import sys

from shipping import image

if __name__ == "__main__":
    sys.exit(image.main(sys.argv[1:]))
