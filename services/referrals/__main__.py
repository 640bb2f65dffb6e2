"""python -m services.referrals <role>"""

from services.referrals.service import Settings, build
from shared.kit.run import main

main("referrals", Settings, build)
