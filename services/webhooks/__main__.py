"""python -m services.webhooks <role>"""

from services.webhooks.service import Settings, build
from shared.kit.run import main

main("webhooks", Settings, build)
