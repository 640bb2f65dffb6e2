"""python -m services.referrals <role>"""

from shared.kit.run import main

from services.referrals.service import Settings, build

main("referrals", Settings, build)
