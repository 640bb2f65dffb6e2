"""python -m services.prior_authorization <role>"""

from services.prior_authorization.service import ROLES, Settings, build
from shared.kit.run import main

main("prior_authorization", Settings, build, ROLES)
