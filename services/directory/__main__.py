"""python -m services.directory <role>"""

from services.directory.service import Settings, build
from shared.kit.run import main

main("directory", Settings, build)
