"""python -m services.directory <role>"""

from shared.kit.run import main

from services.directory.service import Settings, build

main("directory", Settings, build)
