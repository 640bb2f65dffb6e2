"""python -m services.notifications <role>"""

from services.notifications.service import Settings, build
from shared.kit.run import main

main("notifications", Settings, build)
