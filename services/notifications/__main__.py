"""python -m services.notifications <role>"""

from services.notifications.service import ROLES, Settings, build
from shared.kit.run import main

main("notifications", Settings, build, ROLES)
