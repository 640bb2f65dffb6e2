"""python -m services.scheduling <role>"""

from services.scheduling.service import Settings, build
from shared.kit.run import main

main("scheduling", Settings, build)
